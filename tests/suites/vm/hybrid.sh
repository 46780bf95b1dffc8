#!/bin/busybox sh
# First process of a machine whose host is outside: loads the modules and becomes odyn-net.
while read -r module; do /bin/busybox insmod "/modules/$module.ko"; done </modules/order
exec /odyn-net run --link vsock://2:7000 --policy /policy.yaml --on-exit reboot --stdio host -- /bin/busybox sh /program.sh
