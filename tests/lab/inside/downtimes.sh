# Sourced by scenarios that kill workers: what the guest noticed, from its own list of answers and the killer's list of kills.

# downtimes KILLS PROBES DIFFERENCE: the milliseconds of each kill, a line each, in order of size: from the kill to the first answer to a
# question that was asked after it. Lines "kill WHEN" and "probe ASKED ENDED"; DIFFERENCE: the killer's clock minus the asker's.
downtimes() {
    { sed -n "s/^kill \([0-9.]*\).*/\1/p" "$1" | awk -v difference="$3" '{ printf "%.6f kill\n", $1 - difference }'
      sed -n "s/^probe //p" "$2"; } | sort -n | awk '
        $2 == "kill" { waiting[++kills] = $1; next }
        { for (; done < kills; ) printf "%.0f\n", ($2 - waiting[++done]) * 1000 }' | sort -n
}
# distribution <MILLISECONDS
distribution() {
    awk '{ one[NR] = $1 } function at(p) { i = int(NR * p / 100) + 1; return one[i > NR ? NR : i] }
        END { printf "%d kills: p50 %d, p90 %d, p99 %d, most %d ms", NR, at(50), at(90), at(99), one[NR] }'
}
