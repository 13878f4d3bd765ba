#!/bin/sh
# Boots systemd in namespaces: a copy-on-write view of this machine that keeps nothing.
#
#   machine.sh start DIR PROGRAM   until it is killed; DIR is empty, and DIR/host is shared with the machine as /run/host
#   machine.sh clean DIR           removes the cgroups that it leaves
#
# To be run as root by `unshare --mount`, so that no mount outlives it. PROGRAM becomes /usr/local/lib/pop3svc there.
set -eu

dir=$2
inside=$dir/inside
name=pop3svc-test-$(basename "$dir")

mount_cgroups() {
    mkdir -p "$1"
    mount -t cgroup2 cgroup2 "$1"
    cgroup=$1$(sed -n 's/^0:://p' /proc/self/cgroup)/$name
}

case $1 in
start)
    program=$3
    mkdir "$inside"
    mount -t tmpfs -o mode=755 tmpfs "$inside"
    mkdir "$inside/upper" "$inside/work" "$inside/root"

    # systemd manages the cgroups below its own.
    mount_cgroups "$inside/cgroups"
    mkdir "$cgroup"
    echo $$ >"$cgroup/cgroup.procs"

    mount -t overlay -o "lowerdir=/,upperdir=$inside/upper,workdir=$inside/work" overlay "$inside/root"
    cd "$inside/root"
    install -D -m 755 "$program" usr/local/lib/pop3svc
    # Whatever this machine has of ours.
    rm -rf etc/winpop etc/pop3svc etc/systemd/system/pop3svc.service* var/lib/winpop usr/local/bin/*
    rm -f etc/machine-id
    echo 0123456789abcdef0123456789abcdef >etc/machine-id
    exec unshare --pid --net --uts --ipc --cgroup --fork --kill-child -- "$0" boot "$dir"
    ;;
boot)
    cd "$inside/root"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        : >"dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm run/host
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s null dev/console
    mount --bind "$dir/host" run/host
    hostname mail.example.com
    ip link set lo up
    mkdir run/before
    pivot_root . run/before
    umount --lazy /run/before
    exec env -i container=pop3svc-test NOTIFY_SOCKET=/run/host/notify \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no
    ;;
clean)
    mkdir -p "$inside"
    mount -t tmpfs tmpfs "$inside"
    mount_cgroups "$inside/cgroups"
    if [ -d "$cgroup" ]; then
        find "$cgroup" -depth -type d -exec rmdir {} +
    fi
    ;;
esac
