# The conformance suite on real Xen: its cases run in one unprivileged domain, agents make the calls in two others.
draft="two thirds of it were seen to pass, not all in one run"
limit=400

back() {
    try 90 xenstore-exists data/others
    publish begun yes
    { CAISSON_CONFORMANCE=xen:$(xenstore-read data/others) test_conformance -d yes "~*introduces*" 2>&1
      echo $? >/tmp/status; } | tee /tmp/cases
    publish summary "$(tail -2 /tmp/cases | tr -s '\n=' '; ')"
    publish status "$(cat /tmp/status)"
    publish done yes
}
front() { agent; }
stranger() { agent; }
agent() {
    try 90 xenstore-exists data/client
    while :; do
        test_conformance_agent "$(xenstore-read data/client)"
        say "the agent ended"
        sleep 1
    done
}

dom0() {
    for name in back front stranger; do start $name; done
    for name in front stranger; do
        tell $name client "$(id_of back)"
        try 90 xenstore-exists "/local/domain/$(id_of $name)/data/agent/ready" || fail "no agent in $name"
    done
    tell back others "$(id_of front):$(id_of stranger)"
    await back done yes 380
    same "test_conformance's exit status" "$(value back status)" 0
    say "$(value back summary)"
}
