//! `disk` makes and changes disks of parts, `resize` changes their size; both say what they did.

use crate::program::{qemu_img, qimg, scratch};

#[test]
fn options_alone_make_a_disk() {
    let (keep, image) = scratch("disk.qcow2");
    let file = keep.path().join("x=y.efi");
    std::fs::write(&file, b"program").unwrap();
    let root = keep.path().join("root.img");
    std::fs::write(&root, vec![7; 3 << 20]).unwrap();
    let efi = format!("{}=EFI/BOOT/BOOTX64.EFI", file.display());
    let root = root.to_str().unwrap();
    let arguments = [
        "disk",
        "create",
        "--bios-boot",
        "--efi",
        &efi,
        "--root",
        root,
        "--size",
        "20M",
        &image,
    ];
    let said = qimg(arguments).well();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("disk: 20 MiB, "), "{said}");
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines[2].contains("EFI system") && lines[2].contains("FAT12"),
        "{said}"
    );
    qemu_img(["check", "-q", &image]).well();
    let cat = format!("{image}:2:/EFI/BOOT/BOOTX64.EFI");
    assert_eq!(qimg(["cat", &cat]).well(), "program");
    let json = qimg([
        "disk", "create", "--json", "--efi", &efi, "--seed", "s", &image,
    ])
    .json();
    assert_eq!(json["partitions"][0]["type-name"], "EFI system");
    assert_eq!(json["filesystems"][0]["partition"], 1);
    let said = qimg(["disk", "create", &image]).failed(1);
    assert!(said.contains("hint: say --efi"), "{said}");
    let said = qimg(["disk", "create", "--efi", "nothing", &image]).failed(1);
    assert!(said.contains("FILE=PATH"), "{said}");
}

#[test]
fn a_bad_description_is_one_line_and_a_hint() {
    let (keep, image) = scratch("disk.qcow2");
    let path = keep.path().join("disk.toml");
    std::fs::write(
        &path,
        "size = \"1G\"\n[[partition]]\ntype = \"esp\"\nsize = \"huge\"\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let said = qimg(["disk", "create", "--from", path, &image]).failed(1);
    let expected = format!(
        "qimg: {path}: line 4: size: 'huge' is not a size\n  hint: write minimal, rest, or a number with k, M, G or T\n"
    );
    assert_eq!(said, expected);
    assert!(!std::path::Path::new(&image).exists());
}

#[test]
fn disks_grow_and_take_on_an_esp() {
    let (keep, image) = scratch("disk.raw");
    let file = keep.path().join("boot.efi");
    std::fs::write(&file, b"program").unwrap();
    let efi = format!("{}=EFI/BOOT/BOOTX64.EFI", file.display());
    let root = keep.path().join("root.img");
    std::fs::write(&root, vec![7; 3 << 20]).unwrap();
    qimg([
        "disk",
        "create",
        "-q",
        "--root",
        root.to_str().unwrap(),
        &image,
    ])
    .well();
    let said = qimg(["disk", "add-esp", &image]).failed(1);
    assert!(said.contains("hint: say --efi"), "{said}");
    let said = qimg(["disk", "add-esp", "--efi", &efi, &image]).failed(1);
    assert!(said.contains("--grow"), "{said}");
    let said = qimg(["disk", "add-esp", "--grow", "+8M", "--efi", &efi, &image]).well();
    assert!(
        said.contains("EFI system") && said.contains("MiB -> "),
        "{said}"
    );
    let cat = format!("{image}:2:/efi/boot/bootx64.efi");
    assert_eq!(qimg(["cat", &cat]).well(), "program");
    let said = qimg(["disk", "grow", "--grow-last", "--json", &image, "+10M"]).json();
    assert_eq!(said["grown"], 2);
    let said = qimg(["disk", "grow", &image, "1M"]).failed(1);
    assert!(said.contains("qimg resize --shrink"), "{said}");
    let said = qimg(["resize", &image, "-1M"]).failed(1);
    assert!(said.contains("--shrink"), "{said}");
    let said = qimg(["resize", "--shrink", &image, "-20M"]).failed(1);
    assert!(said.contains("would be cut"), "{said}");
    let said = qimg(["resize", &image, "+1M"]).well();
    assert!(said.contains("note: the second GPT"), "{said}");
    qimg(["disk", "grow", "-q", &image, "+0"]).well();
    let said = qimg(["resize", "--json", "-f", "raw", &image, "1G"]).json();
    assert_eq!(said["virtual-size"], 1 << 30);
}
