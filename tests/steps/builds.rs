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

/// A cache that a build shares with none of its other files.
fn elsewhere(world: &World, options: &str) -> Mounted {
    let place = world.at("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(&place)
        .status()
        .unwrap();
    assert!(mounted.success(), "a filesystem cannot be mounted");
    Mounted(place)
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mounted = std::process::Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(mounted.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// The machine has its new disk when the cache turns out to have no room for the one below it.
#[test]
fn a_full_cache_on_another_filesystem_loses_no_step() {
    for inodes in [12, 21] {
        let world = World::new();
        let elsewhere = elsewhere(&world, &format!("size=1g,nr_inodes={inodes}"));
        let steps = counts("one", "true") + &counts("two", "true") + &counts("three", "true");
        world.template("web", "", &steps);
        let cache = elsewhere.0.to_str().unwrap();
        let said = world.build("web", &["--cache", cache]);
        assert!(said.contains("not kept"), "{inodes}: {said}");
        assert_eq!(
            world.tree("web", "/root")[std::path::Path::new("count")],
            b"one\ntwo\nthree\n",
            "{inodes}: {said}"
        );
        let left: Vec<_> = world.states();
        assert!(
            left.iter()
                .all(|(_, place)| !place.join("disk-0.qcow2").is_symlink())
        );
    }
}

#[test]
fn a_cache_that_cannot_be_written_saves_nothing_and_hinders_nothing() {
    let world = World::new();
    let elsewhere = elsewhere(&world, "size=1g");
    world.template("web", "", &counts("one", "true"));
    let cache = elsewhere.0.to_str().unwrap().to_owned();
    world.build("web", &["--cache", &cache]);
    elsewhere.remount("ro");
    let said = world.build("web", &["--cache", &cache]);
    assert!(
        said.contains("No state of the machine is kept or taken"),
        "{said}"
    );
    let listed = world.qimg(&["cache", "list", "--cache", &cache]);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert!(listed.out.contains("state of"), "{}", listed.out);
}

#[test]
fn a_cache_under_a_relative_name_is_the_same_one() {
    let world = World::new();
    world.template("web", "", &counts("one", "true"));
    world.build("web", &["--cache", "relative"]);
    let said = world.build("web", &["--cache", "relative"]);
    assert!(said.contains("Already done"), "{said}");
    std::os::unix::fs::symlink("relative", world.at("link")).unwrap();
    let said = world.build("web", &["--cache", "link"]);
    assert!(said.contains("Already done"), "{said}");
}

#[test]
fn a_cache_that_was_copied_takes_no_disk_of_the_other_one() {
    let world = World::new();
    let writes = |name: &str| {
        format!(
            "[[provision]]\nshell = \"cd /root; dd if=/dev/urandom of={name} bs=64k count=8; md5sum {name} >> sums; sync\"\n"
        )
    };
    let both = writes("one") + &writes("two");
    world.template("web", "", &(both.clone() + &counts("three", "true")));
    let [first, second] = ["first", "second"].map(|name| world.at(name));
    let [first, second] = [&first, &second].map(|path| path.to_str().unwrap());
    world.build("web", &["--cache", first]);
    let copied = std::process::Command::new("cp")
        .args(["-a", first, second])
        .status()
        .unwrap();
    assert!(copied.success());
    // Other bytes under the same names.
    std::fs::remove_dir_all(first).unwrap();
    world.build("web", &["--cache", first]);
    let sums = "md5sum -c sums";
    let last = format!("[[provision]]\nshell = \"cd /root; {sums}\"\n");
    world.template("web", "", &(both + &last));
    let said = world.build("web", &["--cache", second]);
    assert!(said.contains("on top of one elsewhere"), "{said}");
    assert!(said.contains("two: OK"), "{said}");
}

/// That the host has no room says nothing of a state.
#[test]
fn no_room_for_the_memory_leaves_the_state_for_the_next_build() {
    let world = World::new();
    world.template("web", "", &counts("one", "true"));
    world.build("web", &[]);
    let elsewhere = elsewhere(&world, "size=4m");
    let said = world
        .command(&["build", "--force", "web.toml"])
        .env("XDG_STATE_HOME", &elsewhere.0)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(words.contains("cannot be taken now"), "{words}");
    let said = world.build("web", &[]);
    assert!(said.contains("Already done"), "{said}");
}
