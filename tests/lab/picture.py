#!/usr/bin/env python3
"""docs/traffic.svg: which bytes of a guest went where, from the words of a run: ./dev lab devices | tests/lab/picture.py"""

import re
import sys
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[2] / "docs/traffic.svg"
COUNTED = r"bytes: storage (?P<storage>\d+), firewall (?P<firewall>\d+), net (?P<net>\d+), Dom0 (?P<Dom0>\d+)"
LIGHT = {"paper": "#fff", "line": "#d0d7de", "ink": "#1f2328", "soft": "#59636e", "box": "#f6f8fa", "net": "#0969da", "disk": "#1a7f37"}
DARK = {"paper": "#0d1117", "line": "#3d444d", "ink": "#f0f6fc", "soft": "#9198a1", "box": "#151b23", "net": "#4493f8", "disk": "#3fb950"}
COLOURS = """
.paper {{ fill: {paper}; stroke: {line}; }}
.box {{ fill: {box}; stroke: {line}; stroke-width: 1.5; }}
text {{ fill: {ink}; }}
text.soft {{ fill: {soft}; }}
.net {{ fill: {net}; }}
.disk {{ fill: {disk}; }}
"""
STYLE = f"""
text {{ font: 15px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; text-anchor: middle; }}
text.name {{ font-weight: 600; }}
text.soft {{ font-size: 12px; }}
.apart {{ stroke-dasharray: 6 5; }}
{COLOURS.format(**LIGHT)}@media (prefers-color-scheme: dark) {{{COLOURS.format(**DARK)}}}
"""
ROWS = {"net": 92, "disk": 222}  # the middle of each way
THICKEST = 26


def box(x, y, width, height, name, words, kind="box"):
    middle = y + height / 2
    return (f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
            f'<text class="name" x="{x + width / 2}" y="{middle - 3}">{name}</text>'
            f'<text class="soft" x="{x + width / 2}" y="{middle + 15}">{words}</text>')


def way(begin, end, row, bytes_, most, says):
    """An arrow in both directions, as thick as what went along it."""
    y, half = ROWS[row], max(2, THICKEST * bytes_ / most / 2)
    head, wide = half + 5, half + 6
    points = [(begin, y), (begin + head, y - wide), (begin + head, y - half), (end - head, y - half), (end - head, y - wide),
              (end, y), (end - head, y + wide), (end - head, y + half), (begin + head, y + half), (begin + head, y + wide)]
    return (f'<polygon class="{row}" points="{" ".join(f"{x:g},{y:.1f}" for x, y in points)}"/>'
            f'<text x="{(begin + end) / 2:g}" y="{y - 28}">{says}</text>')


def picture(counted):
    most = max(counted.values())
    megabytes = {name: f"{bytes_ / 1e6:.1f} MB" for name, bytes_ in counted.items()}
    parts = [
        box(24, 56, 120, 204, "work", "a guest"),
        way(148, 246, "net", counted["firewall"], most, megabytes["firewall"]), box(250, 60, 130, 64, "sys-firewall", "nftables"),
        way(384, 482, "net", counted["net"], most, megabytes["net"]), box(486, 60, 130, 64, "sys-net", "owns the NIC"),
        way(620, 718, "net", counted["net"], most, "DMA"), box(722, 60, 114, 64, "NIC", "via the IOMMU"),
        way(148, 482, "disk", counted["storage"], most, megabytes["storage"]), box(486, 190, 130, 64, "sys-storage", "owns the NVMe"),
        way(620, 718, "disk", counted["storage"], most, "DMA"), box(722, 190, 114, 64, "NVMe", "via the IOMMU"),
        box(24, 300, 812, 60, f"Dom0: {counted['Dom0']} bytes",
            "no network, no disk; it makes the domains, and keeps their consoles and xenstore", "box apart"),
    ]
    says = ", ".join(f"{name} {bytes_}" for name, bytes_ in counted.items())
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 384" role="img" aria-label="bytes: {says}">\n'
            f"<style>{STYLE}</style>\n"
            f'<rect x="1" y="1" width="858" height="382" rx="12" class="paper"/>\n'
            f'<text class="soft" x="430" y="30">what a guest moved in one run of ./dev lab devices, as the backends counted it</text>\n'
            + "\n".join(parts) + "\n</svg>\n")


def main():
    found = re.search(COUNTED, sys.stdin.read())
    if not found:
        sys.exit("picture: no run of the scenario devices in what was said")
    PICTURE.write_text(picture({name: int(number) for name, number in found.groupdict().items()}))


if __name__ == "__main__":
    main()
