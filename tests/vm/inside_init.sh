#!/bin/sh
# The first process of a User Mode Linux (user_mode.py) whose root is this machine's own, seen read-only:
#
#   inside_init.sh RESULTS CHECKOUT
#
# It lays a tmpfs over that root, mounts what a system has, runs RESULTS/command (a shell script), writes what that says to RESULTS/output and
# its exit status to RESULTS/status, and powers off. What is written elsewhere is gone with it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

results=$1 checkout=$2
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 tmpfs /run
for module in fs/quota/quota_tree fs/quota/quota_v2 fs/overlayfs/overlay fs/fuse/fuse drivers/block/loop; do
    insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko" || echo "no module $module"
done
mkdir /run/upper /run/work /run/root
mount -t overlay -o "lowerdir=/,upperdir=/run/upper,workdir=/run/work" overlay /run/root &&
    cd /run/root && mkdir -p .below && pivot_root . .below || echo "the root cannot be changed"
umount -l /.below
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# As systemd does at boot.
echo '+cpu +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
# A checkout may lie where a tmpfs is by now.
[ -e "$checkout" ] || { mkdir -p "$checkout" && mount -r -t hostfs -o "$checkout" none "$checkout"; }
mkdir -p /run/results
mount -t hostfs -o "$results" none /run/results
ip link set lo up
hostname inside
sh /run/results/command >/run/results/output 2>&1 </dev/null
echo $? >/run/results/status
sync
poweroff -f
