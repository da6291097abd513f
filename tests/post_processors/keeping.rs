//! What stays of an artifact: all that somebody keeps, and all of it when anything failed.

use qimg::ErrorKind;
use qimg::build::artifact::Artifact;
use qimg::template::model::{Dialect, Job};

use super::{Bench, artifice, checksum, compress, manifest, post_processor, script};

fn bench() -> Bench {
    Bench::new(&[("disk.img", b"a disk")])
}

#[test]
fn without_post_processors_all_stays() {
    let mut bench = bench();
    for chains in [vec![], vec![vec![]]] {
        let report = bench.run(&chains).unwrap();
        assert_eq!(report.artifacts, [bench.artifact.clone()]);
    }
    assert_eq!(bench.names(), ["output/", "output/disk.img"]);
}

#[test]
fn in_packers_dialect_what_was_packed_goes_with_its_directory() {
    let mut bench = bench();
    let report = bench.must(&[compress("disk.gz")]);
    assert_eq!(bench.names(), ["disk.gz"]);
    assert_eq!(
        report.artifacts,
        [Artifact::of_post_processor(
            "compress",
            vec!["disk.gz".into()]
        )]
    );
    assert_eq!(bench.told, ["removed output/disk.img"]);
}

#[test]
fn what_somebody_keeps_stays() {
    let mut keeping = compress("disk.gz");
    keeping.keep_input = Some(true);
    let mut bench = bench();
    assert_eq!(bench.must(&[keeping]).artifacts.len(), 2);
    // One of several suffices; who only adds always keeps, whatever the template says.
    for kind in [
        checksum(&["md5"], "sums", false),
        manifest("manifest.json"),
        script(false),
        artifice(&["output/disk.img"]),
    ] {
        let mut bench = self::bench();
        let mut adding = kind;
        adding.keep_input = Some(false);
        let report = bench
            .run(&[vec![compress("disk.gz")], vec![adding]])
            .unwrap();
        assert!(report.removed.is_empty() && report.failed.is_empty());
        assert!(bench.path("output/disk.img").exists());
    }
    let mut bench = self::bench();
    bench.dialect = Dialect::Native;
    assert!(bench.must(&[compress("disk.gz")]).removed.is_empty());
    let mut not_keeping = compress("disk.xz");
    not_keeping.keep_input = Some(false);
    assert_eq!(bench.must(&[not_keeping]).removed.len(), 1);
}

#[test]
fn what_lies_between_goes_but_never_what_still_counts() {
    let mut bench = bench();
    let report = bench.must(&[compress("disk.gz"), compress("disk.gz.xz")]);
    assert_eq!(bench.names(), ["disk.gz.xz"]);
    assert_eq!(report.removed.len(), 2);

    // The checksum's artifact has the builder's file in it, which it keeps.
    let mut bench = self::bench();
    bench.must(&[checksum(&["md5"], "sums", false), compress("disk.zip")]);
    assert_eq!(bench.names(), ["disk.zip", "output/", "output/disk.img"]);

    // Another chain still has what the first one made.
    let mut bench = self::bench();
    let chains = [
        vec![compress("disk.gz")],
        vec![artifice(&["disk.gz"]), compress("again.gz")],
    ];
    let report = bench.run(&chains).unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(bench.path("disk.gz").exists() && bench.path("again.gz").exists());
}

#[test]
fn an_output_in_the_builders_directory_stays_there() {
    let mut bench = bench();
    let mut noted = Bench::new(&[("disk.img", b"a disk")]);
    bench.must(&[
        compress("output/disk.img.gz"),
        manifest("output/manifest.json"),
    ]);
    assert_eq!(
        bench.names(),
        ["output/", "output/disk.img.gz", "output/manifest.json"]
    );
    std::fs::write(noted.path("output/notes"), "somebody's").unwrap();
    noted.must(&[compress("disk.gz")]);
    assert_eq!(noted.names(), ["disk.gz", "output/", "output/notes"]);
}

#[test]
fn a_failure_removes_nothing_and_the_others_run_all_the_same() {
    let mut bench = bench();
    let report = bench
        .run(&[
            vec![compress("disk.gz"), script(true), manifest("never.json")],
            vec![compress("disk.xz"), checksum(&["md5"], "sums", false)],
        ])
        .unwrap();
    assert_eq!(report.failed.len(), 1);
    assert_eq!(
        (report.failed[0].kind.as_str(), report.failed[0].line),
        ("shell-local", 7)
    );
    assert!(report.removed.is_empty());
    assert_eq!(
        bench.names(),
        ["disk.gz", "disk.xz", "output/", "output/disk.img", "sums"]
    );
    assert_eq!(report.artifacts[0], bench.artifact);
}

#[test]
fn whoever_stops_loses_nothing() {
    let mut bench = bench();
    let error = bench
        .run_until(&[vec![compress("disk.gz")]], &|| true)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // In the middle of a file.
    std::fs::write(bench.path("output/disk.img"), vec![1; 20 << 20]).unwrap();
    static ASKED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let stop = || ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 3;
    for output in ["disk.gz", "disk.tar.xz", "disk.zip"] {
        ASKED.store(0, std::sync::atomic::Ordering::Relaxed);
        let error = bench
            .run_until(&[vec![compress(output)]], &stop)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{output}");
    }
    assert_eq!(bench.names(), ["output/", "output/disk.img"]);
}

#[test]
fn nobody_writes_over_what_another_took_or_made() {
    let mut bench = bench();
    for output in [
        "output/disk.img",
        "output/./disk.img",
        "output/../output/disk.img",
    ] {
        let error = bench.failure(&[compress(output)]);
        assert!(
            error.to_string().contains("cannot be what it makes")
                || error.to_string().contains("no packing"),
            "{error}"
        );
        bench.told.clear();
    }
    let report = bench
        .run(&[vec![compress("disk.gz")], vec![compress("disk.gz")]])
        .unwrap();
    assert!(report.failed[0].error.to_string().contains("already"));
    let error = bench.failure(&[checksum(&["md5"], "output/disk.img", false)]);
    assert!(
        error.to_string().contains("cannot hold its checksums"),
        "{error}"
    );
    assert_eq!(bench.read("output/disk.img"), b"a disk");
    let error = bench.failure(&[artifice(&["nothing"])]);
    assert!(error.to_string().contains("is not there"), "{error}");
    assert!(
        bench
            .failure(&[artifice(&[])])
            .to_string()
            .contains("no files")
    );
    let error = bench.failure(&[checksum(&["crc32"], "sums", false)]);
    assert!(error.to_string().contains("crc32"), "{error}");
}

#[test]
fn programs_get_the_artifact_of_their_place_in_the_chain() {
    let mut bench = bench();
    let job = Job::Custom {
        name: "upload".into(),
        options: "{}".into(),
    };
    let report = bench.must(&[
        compress("disk.gz"),
        script(false),
        post_processor("upload", job),
    ]);
    assert_eq!(bench.scripts.len(), 2);
    assert_eq!(
        bench.scripts[0].files,
        [std::path::PathBuf::from("disk.gz")]
    );
    assert_eq!(bench.scripts[1], bench.scripts[0]);
    // A custom one keeps what it says that it keeps.
    assert_eq!(bench.names(), ["disk.gz", "upload"]);
    assert_eq!(
        report.artifacts.last().unwrap().files,
        [std::path::PathBuf::from("upload")]
    );
}

#[test]
fn directories_of_outputs_are_made() {
    let mut bench = bench();
    let report = bench
        .run(&[
            vec![checksum(&["md5"], "sums/of/md5", false)],
            vec![manifest("some/manifest.json")],
            vec![compress("packed/disk.gz")],
        ])
        .unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    for name in ["sums/of/md5", "some/manifest.json", "packed/disk.gz"] {
        assert!(bench.path(name).exists(), "{name}");
    }
}
