//! knest-vmm.
