# Waits until cloud-init has done all of its work. Says, line by line:
#   qimg-cloud-init state absent|disabled|done|running
#   qimg-cloud-init stage NAME           as it goes on; none while it does not say
#   qimg-cloud-init file NAME, the file's lines each after a "|", qimg-cloud-init end
# Needs no root. $1: seconds to wait at most.
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
run=/run/cloud-init
lib=/var/lib/cloud
show() {
    echo "qimg-cloud-init file $1"
    head -c 262144 | sed 's/^/|/'
    echo
    echo 'qimg-cloud-init end'
}
if ! command -v cloud-init >/dev/null 2>&1; then
    echo 'qimg-cloud-init state absent'
    exit 0
fi
if [ -e /etc/cloud/cloud-init.disabled ] || [ -e $run/disabled ]; then
    echo 'qimg-cloud-init state disabled'
    exit 0
fi
# On a guest of systemd whose generator did not enable it, nothing will ever run.
if [ -d /run/systemd/system ] && [ ! -e $run/enabled ] && [ ! -e $run/status.json ] &&
    ! systemctl is-enabled cloud-init.target >/dev/null 2>&1 &&
    ! systemctl is-enabled cloud-init.service >/dev/null 2>&1; then
    echo 'qimg-cloud-init state disabled'
    exit 0
fi
finished() {
    if [ -d $run ]; then
        [ -e $run/result.json ] || return 1
    else
        [ -e $lib/instance/boot-finished ] || return 1
    fi
    # The last of its units may still run what the configuration asked for.
    if [ -d /run/systemd/system ]; then
        [ "$(systemctl is-active cloud-final.service 2>/dev/null)" != activating ] || return 1
    fi
}
stage() {
    sed -n 's/.*"stage": *"\([a-z-]*\)".*/\1/p' $run/status.json 2>/dev/null | head -n 1
}
nap=1
if sleep 0.2 2>/dev/null; then nap=0.2; fi
begun=$(date +%s)
last=
until finished; do
    now=$(stage)
    [ -n "$last" ] || now=${now:-none}
    if [ "$now" != "$last" ] && [ -n "$now" ]; then
        last=$now
        echo "qimg-cloud-init stage $now"
    fi
    if [ $(($(date +%s) - begun)) -ge "$1" ]; then
        echo 'qimg-cloud-init state running'
        exit 0
    fi
    sleep $nap
done
echo 'qimg-cloud-init state done'
for file in $run/status.json $run/result.json; do
    if [ -r $file ]; then show "${file##*/}" <$file; fi
done
if [ ! -r $run/status.json ] && [ ! -r $run/result.json ]; then
    cloud-init status --long 2>/dev/null | show status.txt
fi
exit 0
