//! qimg that is killed without a chance to tidy up.

use std::time::Duration;

use crate::workshop::{Native, Workshop};

#[test]
fn nothing_of_a_killed_build_runs_on_and_the_next_one_sweeps_what_it_left() {
    let workshop = Workshop::new();
    let mut building = workshop.start(
        &Native::quick("[[provision]]\nlocal = \"echo begun; sleep 5\"\n"),
        &[],
    );
    building.wait_for(": begun");
    building.signal("KILL");
    building.end().failed(137, &[]);
    std::fs::remove_file(workshop.path("quick.qcow2")).unwrap();
    let slow = Native {
        output: "compression = \"zstd\"\nlevel = 22\n".to_owned(),
        ..Native::with("[[provision]]\nshell = \"echo begun; sleep 3; echo ended\"\n")
    };
    for moment in ["Starting the machine", ": begun", "Making disk.qcow2"] {
        let mut building = workshop.start(&slow, &[]);
        building.wait_for(moment);
        building.signal("KILL");
        building.end().failed(137, &[]);
        workshop.wait_until_no_qemu(Duration::from_secs(5));
        assert!(workshop.path(".output.qimg-work").exists(), "{moment}");
        assert!(!workshop.path("output").exists(), "{moment}");
    }
    let keys = |workshop: &Workshop| {
        let of = |run: &std::path::PathBuf| run.join("build/key").exists();
        workshop.runs().iter().filter(|run| of(run)).count()
    };
    assert_eq!(keys(&workshop), 1);
    workshop.build(&Native::default(), &[]).well();
    assert_eq!(keys(&workshop), 0);
    assert_eq!(
        workshop.files().into_iter().collect::<Vec<_>>(),
        ["build.toml", "output/disk.qcow2"]
    );
    workshop.assert_tidy();
}
