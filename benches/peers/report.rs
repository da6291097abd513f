//! The table.

use std::time::Duration;

use crate::pairs::{Bench, Cost};

impl Bench {
    /// Prints it.
    pub fn report(&self) -> String {
        let mut out = String::new();
        let markdown = self.settings.markdown;
        let line = |out: &mut String, cells: [&str; 7]| {
            let row = if markdown {
                format!("| {} |\n", cells.join(" | "))
            } else {
                let [what, a, b, c, d, e, f] = cells;
                format!("{what:48} {a:>9} {b:>9} {c:>9} {d:>9} {e:>9}  {f}\n")
            };
            out.push_str(&row);
        };
        let head = ["", "qimg s", "peer s", "faster", "less CPU", "size", "note"];
        line(&mut out, head);
        if markdown {
            line(
                &mut out,
                ["---", "---:", "---:", "---:", "---:", "---:", "---"],
            );
        }
        for row in &self.rows {
            let seconds = |cost: Cost| format!("{:.3}", cost.wall.as_secs_f64());
            let ratio = |a: Duration, b: Duration| {
                format!("{:.2}x", a.as_secs_f64() / b.as_secs_f64().max(1e-6))
            };
            let (peer, faster, less) = row.peer.map_or_else(Default::default, |peer| {
                (
                    seconds(peer),
                    ratio(peer.wall, row.qimg.wall),
                    ratio(peer.cpu, row.qimg.cpu),
                )
            });
            let size = row.sizes.map_or_else(String::new, |(ours, theirs)| {
                format!("{:.4}", ours as f64 / theirs as f64)
            });
            line(
                &mut out,
                [
                    &row.what,
                    &seconds(row.qimg),
                    &peer,
                    &faster,
                    &less,
                    &size,
                    &row.note,
                ],
            );
        }
        out
    }
}
