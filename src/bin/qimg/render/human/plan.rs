//! What a build would do.

use std::io::{self, Write};

use qimg::build::Plan;
use qimg::error::Escaped;

/// All plans.
pub(crate) fn plans(out: &mut dyn Write, plans: &[Plan]) -> io::Result<()> {
    for plan in plans {
        writeln!(out, "{}:", Escaped(&plan.build))?;
        writeln!(
            out,
            "  accelerator: {} ({})",
            plan.accelerator,
            Escaped(&plan.because)
        )?;
        writeln!(out, "  command:")?;
        let mut words = plan.command.iter().peekable();
        while let Some(word) = words.next() {
            write!(out, "    {}", Escaped(word))?;
            if word.starts_with('-')
                && let Some(value) = words.next_if(|value| !value.starts_with('-'))
            {
                write!(out, " '{}'", Escaped(value))?;
            }
            writeln!(out)?;
        }
        for warning in &plan.warnings {
            writeln!(out, "  warning: {}", Escaped(warning))?;
        }
        writeln!(out, "  steps:")?;
        for (index, step) in plan.steps.iter().enumerate() {
            writeln!(out, "    {}. {}", index + 1, Escaped(step))?;
        }
    }
    Ok(())
}
