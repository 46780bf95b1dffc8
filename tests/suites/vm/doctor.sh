#!/bin/busybox sh
# First process of the virtual machine: asks enclaver doctor again and again while the kernel gets
# more and more modules. There is no modprobe, as in an enclave.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp

ask() {
    name=$1
    shift
    enclaver doctor --json "$@" >/tmp/report 2>&1
    echo "RESULT $name-code $?"
    # On one line.
    echo "RESULT $name $(tr -d '\n' </tmp/report)"
}
# All modules up to the one named, in the order in which they load.
load() {
    while read -r module <&3; do
        insmod "/modules/$module.ko" || echo "RESULT insmod failed $module"
        [ "$module" != "$1" ] || break
    done
}

exec 3</modules/order
ask bare
load nfnetlink
ask nfnetlink
load nft_reject_inet
ask partial
load nothing
ask full
ask loopback --link vsock://1:7000
ask host --link vsock://3:7000
echo "RESULT done"
reboot -f
