//! What is unchanged is not run again, and nobody sees it of the image.

use crate::world::World;

/// A step that counts itself on the disk and in memory.
fn counts(name: &str, more: &str) -> String {
    format!(
        "[[provision]]\nshell = \"echo {name} | tee -a /dev/shm/count >> /root/count; {more}\"\n"
    )
}

fn three(last: &str) -> String {
    counts("one", "(sleep 12345 >/dev/null 2>&1 &)")
        + &counts("two", "cat /proc/uptime > /dev/shm/up")
        + last
}

#[test]
fn only_what_is_changed_runs_again_and_the_guest_is_the_same_one() {
    let world = World::new();
    let tells = "echo count $(cat /dev/shm/count | tr '\\\\n' ' '); echo alive $(ps | grep -c '[s]leep 12345'); \
                 echo since $(cat /dev/shm/up); echo year $(date +%s)";
    world.template("web", "", &three(&counts("three", tells)));
    let first = world.build("web", &[]);
    assert!(first.contains("count one two three"), "{first}");
    assert_eq!(first.matches("Kept the state after").count(), 4, "{first}");
    assert_eq!(world.states().len(), 4);

    world.template("web", "", &three(&counts("third", tells)));
    let second = world.build("web", &[]);
    assert_eq!(second.matches("Already done: shell").count(), 2, "{second}");
    assert!(second.contains("count one two third"), "{second}");
    let alive = |said: &str| {
        let (_, rest) = said.split_once("alive ").expect("it told");
        rest.lines().next().unwrap().trim().parse::<u32>().unwrap()
    };
    assert!(alive(&second) >= 1, "{second}");
    // Its memory, and not another boot's.
    let since = |said: &str| {
        let (_, rest) = said.split_once("since ").expect("it told");
        rest.lines().next().unwrap().to_owned()
    };
    assert_eq!(since(&first), since(&second));
    let (_, rest) = second.split_once("year ").unwrap();
    let guest: u64 = rest.lines().next().unwrap().trim().parse().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now.abs_diff(guest) < 900, "{guest} at {now}");
    let resumed = world.tree("web", "/root");

    // Nobody sees it of the image.
    let third = world.build("web", &["--no-cache"]);
    assert!(
        !third.contains("Already done") && !third.contains("Kept the state"),
        "{third}"
    );
    let whole = world.tree("web", "/root");
    assert_eq!(
        String::from_utf8_lossy(&whole[std::path::Path::new("count")]),
        "one\ntwo\nthird\n"
    );
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        resumed.keys().collect::<Vec<_>>()
    );
    assert_eq!(whole, resumed);
    for place in ["/bin", "/usr", "/sbin"] {
        assert!(
            world.tree("web", place) == whole_of(&world, place),
            "{place}"
        );
    }
    // Nothing is left of a build but its artifact.
    let names: Vec<String> = std::fs::read_dir(world.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("qimg-work"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// The base's own files, which no step has touched.
fn whole_of(world: &World, place: &str) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let base = crate::world::small().join("small.qcow2");
    std::fs::create_dir_all(world.at("output-base")).unwrap();
    let link = world.at("output-base/disk.qcow2");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(base, &link).unwrap();
    world.tree("base", place)
}

#[test]
fn a_state_that_is_not_what_it_was_is_passed_over() {
    let world = World::new();
    world.template("web", "", &three(&counts("three", "cat /dev/shm/count")));
    world.build("web", &[]);
    let states = world.states();
    let of = |line: &str| {
        let found = states.iter().find(|(text, _)| text.contains(line));
        found.unwrap_or_else(|| panic!("{states:?}")).1.clone()
    };
    let mut lines: Vec<&str> = states
        .iter()
        .filter_map(|(text, _)| text.split_once("(line ").map(|(_, rest)| rest))
        .collect();
    lines.sort_by_key(|line| line.trim_end_matches(')').parse::<u32>().unwrap());
    // The disk of the second step's state, with one bit that is another; the third's is on top of it.
    let disk = of(&format!("(line {}", lines[1])).join("disk-0.qcow2");
    let mut bytes = std::fs::read(&disk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&disk, bytes).unwrap();
    let said = world.build("web", &[]);
    assert!(said.contains("is not what it was"), "{said}");
    assert_eq!(said.matches("Already done").count(), 1, "{said}");
    assert!(said.contains("one"), "{said}");
    // The memory of the last state, cut short: the one before it is sound.
    let memory = of(&format!("(line {}", lines[2])).join("memory.zst");
    let mut bytes = std::fs::read(&memory).unwrap();
    let end = bytes.len() - 5000;
    bytes[end] ^= 1;
    std::fs::write(&memory, bytes).unwrap();
    let said = world.build("web", &[]);
    assert!(said.contains("of no use"), "{said}");
    assert_eq!(said.matches("Already done").count(), 2, "{said}");
    // Removed midway: the first state goes, and all on top of it with it.
    let removed = world.qimg(&["cache", "prune"]);
    assert!(removed.out.contains("removed"), "{}", removed.out);
    assert!(world.states().is_empty());
    let said = world.build("web", &[]);
    assert!(!said.contains("Already done"), "{said}");
}

#[test]
fn two_builds_at_once_and_one_that_is_killed_leave_whole_states_or_none() {
    let world = World::new();
    let steps = three(&counts("three", "true"));
    world.template("one", "", &steps);
    let text = std::fs::read_to_string(world.at("one.toml")).unwrap();
    let other = text.replace("output-one", "output-other");
    std::fs::write(world.at("other.toml"), format!("name = \"one\"\n{other}")).unwrap();
    // Killed in the midst of it.
    let mut killed = world
        .command(&["build", "--force", "one.toml"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(killed.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Kept the state after shell") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut builds: Vec<_> = ["one.toml", "other.toml"]
        .map(|name| {
            world
                .command(&["build", "--force", name])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .into();
    for build in &mut builds {
        assert!(build.wait().unwrap().success());
    }
    let said = world.build("one", &[]);
    assert_eq!(said.matches("Already done").count(), 3, "{said}");
}

#[test]
fn where_the_memory_cannot_be_had_a_boot_from_the_disk_is_allowed_or_all_is_done_again() {
    let world = World::new();
    let steps = three(&counts(
        "three",
        "cat /dev/shm/count; echo root $(cat /root/count | wc -l)",
    ));
    world.template("web", "resume = \"disk\"", &steps);
    world.build("web", &[]);
    // As if another QEMU had been there.
    for (_, place) in world.states() {
        let record = place.join("record.json");
        let text = std::fs::read_to_string(&record).unwrap();
        let (before, rest) = text.split_once("\"qemu\":\"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        std::fs::write(&record, format!("{before}\"qemu\":\"9.9.9\"{after}")).unwrap();
    }
    let changed = steps.replace("echo three", "echo third");
    world.template("web", "resume = \"disk\"", &changed);
    let said = world.build("web", &[]);
    assert!(said.contains("it is that of QEMU 9.9.9"), "{said}");
    assert!(said.contains("after a reboot"), "{said}");
    assert_eq!(said.matches("Already done").count(), 2, "{said}");
    assert!(said.contains("root 3"), "{said}");
    world.template(
        "web",
        "resume = \"memory\"",
        &changed.replace("third", "fourth"),
    );
    for (_, place) in world.states() {
        let record = place.join("record.json");
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(
            &record,
            text.replace("\"accelerator\":\"tcg\"", "\"accelerator\":\"kvm\""),
        )
        .unwrap();
    }
    let said = world.build("web", &[]);
    assert!(said.contains("run by kvm"), "{said}");
    assert!(!said.contains("Already done"), "{said}");
}

/// One file for each state, and a base below them all.
#[test]
fn a_build_of_many_steps_keeps_many_states_and_makes_its_image() {
    let world = World::new();
    let steps: String = (0..70)
        .map(|step| format!("[[provision]]\nshell = \"echo {step} > /root/{step}\"\n"))
        .collect();
    world.template("web", "", &steps);
    world.build("web", &[]);
    // No more than so many are on top of one another.
    assert_eq!(world.states().len(), 64);
    let files = world.tree("web", "/root");
    assert!((0..70).all(|step| files.contains_key(&std::path::PathBuf::from(step.to_string()))));
}
