//! Machines in words.

use std::io::{self, Write};

use qimg::build::layers;
use qimg::build::register::{Entrance, Listed, Purpose, Run};
use qimg::error::Escaped;
use serde_json::Value;

use super::date;

/// How a machine is entered, for a person.
pub(crate) fn entrance(out: &mut dyn Write, run: &Run, ready: bool) -> io::Result<()> {
    writeln!(out, "{}", run.run)?;
    if let Some(entrance) = run.entrance.as_ref().filter(|_| ready) {
        writeln!(out, "  enter    qimg ssh {}", run.run)?;
        writeln!(out, "  or       {}", command(entrance))?;
    }
    writeln!(out, "  console  {}", run.console.display())?;
    writeln!(out, "  end      Ctrl-C, or qimg kill {}", run.run)
}

/// A machine that runs in the background.
pub(crate) fn detached(out: &mut dyn Write, details: &Value) -> io::Result<()> {
    let text = |name: &str| details[name].as_str().unwrap_or_default().to_owned();
    writeln!(out, "{}", text("run"))?;
    if details["ready"] == true {
        writeln!(out, "  enter    qimg ssh {}", text("run"))?;
    }
    writeln!(out, "  console  {}", text("console"))?;
    writeln!(out, "  end      qimg kill {}", text("run"))
}

fn command(entrance: &Entrance) -> String {
    let mut words = format!("ssh -p {}", entrance.port);
    if let Some(key) = &entrance.key {
        words.push_str(&format!(" -i {}", key.display()));
    }
    if let Some(file) = &entrance.known_hosts {
        words.push_str(&format!(" -o UserKnownHostsFile={}", file.display()));
    }
    format!("{words} {}@{}", entrance.user, entrance.host)
}

/// One line each.
pub(crate) fn list(out: &mut dyn Write, all: &[Listed]) -> io::Result<()> {
    for Listed { run, alive } in all {
        let started = date::seconds(i64::try_from(run.started).unwrap_or(0));
        let state = match (alive, run.purpose, &run.entrance) {
            (false, ..) => "failed",
            (true, Purpose::Build, _) if run.left.is_some() => "runs",
            (true, Purpose::Build, _) => "builds",
            (true, Purpose::Visit, None) => "starts",
            (true, Purpose::Visit, Some(_)) => "runs",
        };
        let port = match &run.entrance {
            Some(entrance) if *alive => format!("{}:{}", entrance.host, entrance.port),
            _ => "-".to_owned(),
        };
        writeln!(
            out,
            "{started}  {state:6}  {:>7}  {port:21}  {}  {}",
            if *alive {
                run.process.to_string()
            } else {
                "-".to_owned()
            },
            run.run,
            Escaped(&run.of.to_string_lossy())
        )?;
        if let Some(left) = &run.left {
            writeln!(out, "    {}", Escaped(&left.why))?;
        }
        if let Some(lost) = layers::lost(run).filter(|_| !alive) {
            writeln!(out, "    {}", Escaped(&lost.to_string()))?;
        }
    }
    Ok(())
}
