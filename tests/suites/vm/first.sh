#!/bin/busybox sh
# Loads the modules, which is the image's business, and makes odyn-net the machine's first process. Nothing
# is mounted, and there is no host.
while read -r module; do /bin/busybox insmod "/modules/$module.ko"; done </modules/order
exec /odyn-net run --link vsock://2:7000 --policy /policy.yaml --drain-timeout 1s -- /bin/busybox sh /program.sh
