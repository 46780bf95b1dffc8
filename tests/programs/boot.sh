#!/bin/sh
# boot.sh DIR NAME UNITS EXECUTABLE: becomes a systemd that runs as the first process of its own
# namespaces, on a copy-on-write root, in the network namespace that it is started in.
#
# DIR/run is its /run; DIR/etc is its /etc/enclaver-outer. It knows the units of UNITS and hardly
# any others, and cannot write to the machine's /sys and /proc/sys.
set -e
dir=$1 name=$2 units=$3 executable=$4

if [ -z "$ODYN_BOOT_INSIDE" ]; then
    # A cgroup of its own, in which the cgroup namespace begins.
    mkdir -p "$dir/cgroup" "$dir/root"
    mount -t cgroup2 cgroup2 "$dir/cgroup"
    mkdir -p "$dir/cgroup/$name"
    echo 0 >"$dir/cgroup/$name/cgroup.procs"
    ODYN_BOOT_INSIDE=1
    export ODYN_BOOT_INSIDE
    exec unshare --fork --kill-child --pid --mount --cgroup --uts --ipc --propagation private \
        sh "$0" "$@"
fi

mount -t tmpfs -o mode=755 tmpfs "$dir/root"
mkdir "$dir/root/upper" "$dir/root/work" "$dir/root/merged"
root=$dir/root/merged
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/root/upper,workdir=$dir/root/work" "$root"

# What was read through mounts before.
for file in /etc/resolv.conf /etc/nsswitch.conf; do
    [ ! -e "$file" ] || { cat "$file" >"$dir/copy"; rm -f "$root$file"; cat "$dir/copy" >"$root$file"; }
done
mkdir -p "$root/etc/enclaver-outer" "$root/units"
mount --bind "$dir/etc" "$root/etc/enclaver-outer"
install -m 755 "$executable" "$root/usr/bin/enclaver-outer"
cp "$units"/*.service "$units"/enclaver-outer*.socket "$root/units/"
for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    cp "/lib/systemd/system/$unit" "$root/units/"
done
for unit in sysinit.target basic.target shutdown.target network-online.target; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$root/units/$unit"
done
printf '[Unit]\nWants=systemd-journald.service\n' >"$root/units/boot.target"
rm -rf "$root/usr/lib/systemd/system-generators" "$root/usr/lib/systemd/system-environment-generators" \
    "$root/var/log/journal"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --bind "$dir/run" "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

# Not chroot: no user namespace can be made in one.
cd "$root"
pivot_root . .
umount -l .
cd /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/units \
    /lib/systemd/systemd --unit=boot.target --log-target=journal --log-level=info
