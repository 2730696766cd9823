//! knest-rootfs.
