//! The `qimg` program.
use qimg::compress::*;
use qimg::image::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let cancel = std::sync::atomic::AtomicBool::new(false);
    let src = Image::open(
        &a[2],
        &OpenOptions {
            backing: BackingPolicy::Any,
            ..Default::default()
        },
    )
    .unwrap();
    let threads = std::env::var("T").map_or(2, |t| t.parse().unwrap());
    if a[1] == "compress" {
        let level = a
            .get(5)
            .map_or(Effort::Default, |l| Effort::Level(l.parse().unwrap()));
        let r = compress(
            &CompressRequest {
                source: &src,
                destination: Some(a[3].as_ref()),
                codec: a.get(4).map_or("zlib", |s| s).parse().unwrap(),
                effort: level,
                window: None,
                cluster_size: std::env::var("CS").ok().map(|c| c.parse().unwrap()),
                flatten: false,
                drop_snapshots: false,
                drop_bitmaps: false,
                existing: false,
                threads,
                sync: qimg::store::Sync::None,
            },
            &cancel,
            &mut |_, _| {},
        )
        .unwrap();
        eprintln!("{r:?}");
    } else {
        let format: Format = a[4].parse().unwrap();
        let r = qimg::rewrite::rewrite(
            &qimg::rewrite::RewriteRequest {
                source: &src,
                snapshot: None,
                destination: a[3].as_ref(),
                target: TargetOptions {
                    format,
                    qcow2: Default::default(),
                    existing: false,
                    sync: qimg::store::Sync::None,
                    locking: Default::default(),
                },
                overlay: false,
                encoding: None,
                reuse: Default::default(),
                bitmaps: Default::default(),
                sparse: 4096,
                in_place: false,
                threads,
            },
            &cancel,
            &mut |_, _| {},
        )
        .unwrap();
        eprintln!("{r:?}");
    }
}
