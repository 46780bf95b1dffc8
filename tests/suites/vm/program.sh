# The unmodified app in the guest.
PATH=/bin
/bin/busybox --install -s /bin
# The kernel's clock when the link is up and the app starts, and what odyn-net takes then.
echo "RESULT up-program $(cut -d' ' -f1 /proc/uptime)"
echo "RESULT resident $(grep VmRSS /proc/1/status | tr -dc 0-9)"
echo "RESULT uid $(id -u)"
echo "RESULT page $(curl -sS http://www.shop.example/page)"
curl -sS -o /dev/null http://203.0.113.11/
echo "RESULT denied $?"
curl -sS http://other.example/
echo "RESULT unknown $?"
echo "RESULT udp $(tool ping 203.0.113.10 5000 ping)"
tool vsock 1 7000 && echo "RESULT vsock open" || echo "RESULT vsock refused"
printf 'RESULT last line'
# The last bytes are in the kernel when this shell ends.
tool send www.shop.example 9000 </blob
exit 7
