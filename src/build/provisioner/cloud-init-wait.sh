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
# The guest may have one slow processor, which cloud-init needs: nothing is started here but the naps.
stage() {
    stage=
    [ -r $run/status.json ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        *'"stage": "'*)
            stage=${line#*\"stage\": \"}
            stage=${stage%%\"*}
            return 0
            ;;
        esac
    done <$run/status.json
}
now() {
    if [ -r /proc/uptime ]; then
        read -r now _ </proc/uptime
        now=${now%%.*}
    else
        now=$(date +%s)
    fi
}
nap=1
if sleep 0.25 2>/dev/null; then nap=0.25; fi
now
begun=$now
last=
until finished; do
    stage
    [ -n "$last" ] || stage=${stage:-none}
    if [ "$stage" != "$last" ] && [ -n "$stage" ]; then
        last=$stage
        echo "qimg-cloud-init stage $stage"
    fi
    now
    if [ $((now - begun)) -ge "$1" ]; then
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
