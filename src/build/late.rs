//! Text that is filled in when it is used.
//!
//! Knows the contract only: what fills in is the template language, which the pipeline hands in.

use crate::error::Result;
use crate::template::model::Text;

/// Fills in what is only known while a build runs.
pub trait RenderText: Send + Sync {
    /// `text` with all its actions carried out; `fields` are what `.NAME` stands for here, besides what the build as
    /// a whole offers.
    ///
    /// # Errors
    /// The text is none of the template language, or asks for something that there is not here.
    fn render(&self, text: &Text, fields: &[(&str, &str)]) -> Result<String>;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::Error;

    /// Replaces `{{.NAME}}` and `{{ .NAME }}`, and knows no more.
    #[derive(Debug)]
    pub(crate) struct Fields;

    impl RenderText for Fields {
        fn render(&self, text: &Text, fields: &[(&str, &str)]) -> Result<String> {
            let mut out = String::new();
            let mut rest = text.0.as_str();
            while let Some((before, after)) = rest.split_once("{{") {
                out.push_str(before);
                let (action, behind) = after
                    .split_once("}}")
                    .ok_or_else(|| Error::usage("an action has no end"))?;
                let name = action.trim().trim_start_matches('.');
                let (_, value) = fields
                    .iter()
                    .find(|(field, _)| *field == name)
                    .ok_or_else(|| Error::usage(format!("there is no .{name} here")))?;
                out.push_str(value);
                rest = behind;
            }
            out.push_str(rest);
            Ok(out)
        }
    }

    #[test]
    fn fields_are_filled_in() {
        let text = Text("chmod +x {{.Path}}; {{ .Vars }}{{.Path}}".to_owned());
        let filled = Fields.render(&text, &[("Path", "/tmp/x"), ("Vars", "A=1 ")]);
        assert_eq!(filled.unwrap(), "chmod +x /tmp/x; A=1 /tmp/x");
        assert!(Fields.render(&text, &[("Path", "/tmp/x")]).is_err());
    }
}
