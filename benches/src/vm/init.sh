#!/bin/busybox sh
# First process of the virtual machine in which everybody is measured over AF_VSOCK. All of the machine
# is in memory; what it measured goes out by the console.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /run /var/log/nginx /var/lib/nginx /var/lib/haproxy /var/lib/misc
chmod 1777 /tmp
while read -r module; do insmod "/modules/$module.ko" || echo "no module $module"; done </modules/order
ip link set lo up
ulimit -Hn 200000
ulimit -Sn 200000
sh /words || echo "odyn-bench ended with $?"
echo "RESULTS BEGIN"
cat /results.json
echo "RESULTS END"
reboot -f
