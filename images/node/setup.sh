#!/bin/sh
# Runs once inside the image while it is built, with the build's own files in this script's directory:
# fills containerd's store and leaves only the units that a node needs.
set -eu
here=$(dirname "$0")

"$here/store" /var/lib/containerd "$(cat "$here/pause-image")" "$here"/images/*.tar

systemctl enable containerd.service kubelet.service knest-seed.service knest-user-data.service
systemctl set-default multi-user.target

# The first boot makes the machine's identity.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id
# Interfaces keep the kernel's names: the seed finds its own by MAC while udev still starts.
ln -sf /dev/null /etc/systemd/network/99-default.link
# hvc0 has its own unit and ttyS0 is a log, so no getty is generated.
mkdir -p /etc/systemd/system-generators
for generator in systemd-getty-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator \
    systemd-cryptsetup-generator systemd-veritysetup-generator systemd-integritysetup-generator \
    systemd-ssh-generator systemd-tpm2-generator systemd-rc-local-generator systemd-sysv-generator; do
    ln -sf /dev/null /etc/systemd/system-generators/$generator
done
# Each costs boot time and does nothing for a node: there are no modules, no first-boot questions, no
# packages to keep up to date, no TPM, no hardware database, no swap or hibernation.
cd /etc/systemd/system
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty.target getty@tty1.service ldconfig.service systemd-binfmt.service systemd-boot-update.service \
    systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-hibernate-clear.service systemd-modules-load.service systemd-network-generator.service \
    systemd-pcrphase.service systemd-pcrphase-initrd.service systemd-pcrphase-sysinit.service \
    systemd-pstore.service systemd-rfkill.service systemd-rfkill.socket systemd-sysusers.service \
    systemd-update-done.service systemd-update-utmp.service systemd-networkd-persistent-storage.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path modprobe@configfs.service \
    modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    modprobe@loop.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount tmp.mount; do
    ln -sf /dev/null $unit
done
