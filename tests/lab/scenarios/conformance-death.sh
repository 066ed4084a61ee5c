# The conformance suite's deaths on real Xen: Dom0 destroys the other domain in the middle of a case.
limit=200

back() {
    number=0
    for name in "the death of a mapper*" "the death of an owner*" "the death of one side*" "a death removes*"; do
        number=$((number + 1))
        told case $number 90
        CAISSON_CONFORMANCE_DEATH=1 CAISSON_CONFORMANCE=xen:$(xenstore-read data/others) test_conformance "$name" ||
            fail "$name"  # also when it was skipped
        publish done $number
    done
}
front() { agent; }
stranger() { agent; }
agent() {
    try 90 xenstore-exists data/client
    test_conformance_agent "$(xenstore-read data/client)"
}

agent_in() {
    start "$1"
    tell "$1" client "$(id_of back)"
    try 90 xenstore-exists "/local/domain/$(id_of "$1")/data/agent/ready" || fail "no agent in $1"
}
dom0() {
    start back
    agent_in stranger
    for number in 1 2 3 4; do
        agent_in front
        front=$(id_of front)
        tell back others "$front:$(id_of stranger)"
        tell back case $number
        await back kill "$front" 90
        xl destroy front
        tell back killed "$front"
        await back done $number 60
    done
}
