# An app that is root, in a machine whose first process is odyn-net.
export PATH=/bin
/bin/busybox --install -s /bin
exec >/dev/console 2>&1
echo "RESULT uid $(id -u)"
echo "RESULT parent $PPID $(cat /proc/1/comm)"
echo "RESULT mounts $(cut -d' ' -f2 /proc/mounts | grep -xE '/(proc|sys|dev|dev/pts|dev/shm|run|tmp)' | sort -u | tr '\n' ' ')"
echo "RESULT resolver $(cat /etc/resolv.conf)"
echo "RESULT name $(hostname)"
echo "RESULT helpers <$(cat /proc/sys/kernel/modprobe)> <$(cat /proc/sys/kernel/core_pattern)>"
(echo '|/bin/evil' >/proc/sys/kernel/core_pattern) 2>/dev/null && echo "RESULT pattern written" || echo "RESULT pattern refused"
# The kernel asks for a module when a socket of an unknown family is made; what stands at that path now is ours.
mkdir -p /sbin
printf '#!/bin/busybox sh\n/bin/busybox touch /helped\n' >/sbin/modprobe
chmod 755 /sbin/modprobe
printf '\377\377\377\377' >/tmp/odd; chmod 755 /tmp/odd
/tmp/odd 2>/dev/null
test -e /helped && echo "RESULT helper ran" || echo "RESULT helper did-not-run"
(sleep 1000 &)
echo "RESULT program done"
exit 5
