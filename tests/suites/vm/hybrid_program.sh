# The app in a machine whose host is outside.
PATH=/bin
/bin/busybox --install -s /bin
echo "RESULT up-program $(cut -d' ' -f1 /proc/uptime)"
echo "RESULT page $(nc www.shop.example 7000 </dev/null)"
# One query: busybox makes its ids of the clock, which is coarse in an emulator, and two would have the same.
nslookup -type=a other.example >/dev/null 2>&1 || echo "RESULT unknown"
# The last bytes are in the kernel when this shell ends.
tool send www.shop.example 9000 </blob
exit 7
