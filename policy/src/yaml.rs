//! The text of a policy as a tree. What is wrong with it goes to the sink.

use odyn_yaml::{Anchors, ProblemKind};

pub(crate) use odyn_yaml::{Scalar, ScalarKind, YamlKey, YamlNode, YamlValue, nearest, short};

use crate::codes;
use crate::diagnostic::DiagnosticSink;

/// Reads one document. `None` when there is none that can be used; why is in the sink.
pub(crate) fn parse(text: &str, sink: &mut DiagnosticSink) -> Option<YamlNode> {
    let problems = match odyn_yaml::parse(text, Anchors::Followed) {
        Ok(root) => return Some(root),
        Err(problems) => problems,
    };
    for problem in problems {
        let (code, help) = match problem.kind {
            ProblemKind::Syntax => (codes::YAML, problem.help),
            ProblemKind::TooLarge => (codes::TOO_LARGE, problem.help),
            ProblemKind::HiddenCharacter => (codes::HIDDEN_CHARACTER, problem.help),
            ProblemKind::Empty => {
                let help = "a policy starts with `version: v1`".to_owned();
                (codes::EMPTY, Some(help))
            }
        };
        sink.error(code, problem.span, problem.message)
            .help_opt(help);
    }
    None
}
