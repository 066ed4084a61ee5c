// disk=: both syntaxes of xl-disk-configuration(5), the numbers of virtual devices, and what is refused.
#include <catch2/catch.hpp>

#include "domains/toolstack/disk_spec.h"
#include "protocols/block_names.h"

using namespace caisson;
using namespace caisson::toolstack;
using caisson::block::virtual_device;

namespace {
std::string complaint(std::string_view spec) {
    const auto disk = parse_disk(spec);
    return disk ? "no complaint" : disk.error().message();
}
}  // namespace

TEST_CASE("The examples of xl-disk-configuration(5) are understood") {
    for (const char* spec :
         {"/dev/vg/guest-volume,,hda", "/dev/vg/guest-volume,raw,hda,rw",
          "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", "raw:/dev/vg/guest-volume,hda,w"}) {
        INFO(spec);
        const auto disk = parse_disk(spec);
        REQUIRE(disk);
        CHECK(disk->target == "/dev/vg/guest-volume");
        CHECK(disk->vdev == "hda");
        CHECK(disk->id == 768);
        CHECK_FALSE(disk->read_only);
        CHECK_FALSE(disk->cdrom);
    }
    for (const char* spec :
         {"/root/image.iso,,hdc,cdrom", "/root/image.iso,,hdc,,cdrom", "/root/image.iso,raw,hdc,devtype=cdrom",
          "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
          "raw:/root/image.iso,hdc:cdrom,ro"}) {
        INFO(spec);
        const auto disk = parse_disk(spec);
        REQUIRE(disk);
        CHECK(disk->target == "/root/image.iso");
        CHECK(disk->id == 5632);
        CHECK(disk->read_only);
        CHECK(disk->cdrom);
        CHECK(disk->removable);
    }
}

TEST_CASE("Every key of a disk reaches its place") {
    const auto disk = parse_disk(
        "vdev=xvdb,access=ro,backend=sys-storage,backendtype=qdisk,no-discard,direct-io-safe,target=nbd:unix:"
        "/run/s:a,b");
    REQUIRE(disk);
    CHECK(disk->backend == "sys-storage");
    CHECK(disk->type == "qdisk");
    CHECK(disk->target == "nbd:unix:/run/s:a,b");
    CHECK((disk->read_only && disk->direct_io_safe && !disk->cdrom && !disk->removable));
    CHECK(disk->discard == false);
    CHECK(parse_disk("vdev=xvda,discard,target=/x")->discard == true);
    CHECK_FALSE(parse_disk("vdev=xvda,target=/x")->discard.has_value());
    CHECK(parse_disk("vdev=xvda,script=mine,target=/x")->script == "mine");
    const auto old = parse_disk("nbd://host:10809/x,xvda,rw");  // a deprecated prefix to libxlutil: needs its slash
    REQUIRE(old);
    CHECK(old->target == "nbd://host:10809/x");
    CHECK(parse_disk("vdev=xvda,target=memory:64M")->target == "memory:64M");
    CHECK(parse_disk("vdev=xvda,target=/x")->backend == "0");
}

TEST_CASE("What cannot be served is refused with the reason") {
    CHECK_THAT(complaint("/a.qcow2,qcow2,xvda,rw"), Catch::Contains("only raw is served") && Catch::Contains("nbd"));
    CHECK_THAT(complaint("vhd:/a,xvda,w"), Catch::Contains("only raw is served"));
    CHECK_THAT(complaint("disk.img,raw,xvda,rw"), Catch::Contains("'disk.img' is no absolute path"));
    CHECK_THAT(complaint("/a,raw,nonsense,rw"), Catch::Contains("'nonsense' is no name like xvda"));
    CHECK_THAT(complaint("/a,raw"), Catch::Contains("vdev"));
    CHECK_THAT(complaint(",empty,hdc,cdrom"), Catch::Contains("has no target"));
    CHECK_THAT(complaint("vdev=xvda,acess=ro,target=/a"), Catch::Contains("acess"));
    CHECK_THAT(complaint("vdev=xvda,access=x,target=/a"), Catch::Contains("access"));
    CHECK_THAT(complaint("vdev=xvda,backend=a/b,target=/a"), Catch::Contains("neither a domain's name nor an id"));
    CHECK_THAT(complaint(std::string("vdev=xvda,target=/a\n")), Catch::Contains("control character"));
    CHECK_THAT(complaint("vdev=xvda,target=/" + std::string(5000, 'a')), Catch::Contains("at most 4096"));
}

TEST_CASE("Virtual devices have the numbers that libxl gives them") {
    CHECK(virtual_device("xvda") == 51712);
    CHECK(virtual_device("xvda1") == 51713);
    CHECK(virtual_device("xvdp15") == (202u << 8 | 15 << 4 | 15));
    CHECK(virtual_device("xvdq") == (1u << 28 | 16 << 8));
    CHECK(virtual_device("xvda16") == (1u << 28 | 16));
    CHECK(virtual_device("xvdaa") == (1u << 28 | 26 << 8));
    CHECK(virtual_device("d0p0") == 51712);
    CHECK(virtual_device("d16p3") == (1u << 28 | 16 << 8 | 3));
    CHECK(virtual_device("hda") == 768);
    CHECK(virtual_device("hdb1") == (3u << 8 | 64 | 1));
    CHECK(virtual_device("hdd") == (22u << 8 | 64));
    CHECK(virtual_device("sda") == 2048);
    CHECK(virtual_device("sdp15") == (8u << 8 | 15 << 4 | 15));
    CHECK(virtual_device("51712") == 51712);
    for (const char* wrong : {"", "xvd", "xvda256", "xvd1", "hde", "hda64", "sdq", "sda16", "d0", "d0p256", "dp0",
                              "d1048576p0", "xvda1x", "vda", "-1", "4294967295", "xvdzzzzzzzzzz"})
        CHECK_FALSE(virtual_device(wrong).has_value());
}

TEST_CASE("What xl has no word for is added to the disk it names") {
    std::vector<Disk> disks{*parse_disk("/a,raw,xvda,rw"), *parse_disk("/b,raw,xvdb,rw")};
    REQUIRE(refine_disk(
        disks, "vdev=xvdb,rate-iops=1000:5000,rate-bytes=1048576,sector-size=4096,shared=1,removable=1,direct-io=0"));
    REQUIRE(refine_disk(disks, "vdev=xvda,claimed=1"));
    CHECK(disks[1].rate_iops == "1000,5000");
    CHECK(disks[1].rate_bytes == "1048576");
    CHECK(disks[1].sector_size == 4096);
    CHECK(disks[1].shared);
    CHECK(disks[1].removable);
    CHECK(disks[1].direct_io == false);
    CHECK(disks[0].rate_iops.empty());
    CHECK((disks[0].claimed && !disks[1].claimed));
    for (const char* spec : {"rate-iops=1", "vdev=xvdc,rate-iops=1", "vdev=xvda,rate-iops=0", "vdev=xvda,rate-iops=1:",
                             "vdev=xvda,sector-size=520", "vdev=xvda,shared=yes", "vdev=xvda,colour=red"})
        CHECK_FALSE(refine_disk(disks, spec));
}
