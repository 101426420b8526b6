//! Reads texts with variables, and the edits of headers that are made of them.

use super::model::{HeaderEdits, Template, TemplatePart, Variable};
use super::reader::Table;
use super::report::Wrong;
use super::{route_values, values};

/// Characters of a text with variables.
const TEMPLATE_MAX: usize = 4096;
/// Headers that one block sets, adds or removes.
pub(super) const EDITS_MAX: usize = 64;

/// Fields that frame a message or belong to one connection (RFC 9110 section 7.6.1, RFC 9112 section 6): what they say is
/// ours to say.
const UNTOUCHABLE: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// When a text is made, and so which variables have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before a pool is chosen.
    Asked,
    /// On the way to a server.
    Sent,
    /// When there is a response.
    Answered,
}

/// Reads `text {variable} text`; `{{` and `}}` are braces.
pub(super) fn template(text: &str, moment: Moment) -> Result<Template, Wrong> {
    if text.len() > TEMPLATE_MAX {
        return Err(Wrong::new(format!("must be at most {TEMPLATE_MAX} characters"), "write a shorter text"));
    }
    if text.contains(char::is_control) {
        return Err(Wrong::new("must have no line ends and no control characters", "leave them out"));
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        literal.push_str(before);
        let brace = if from.starts_with('{') { '{' } else { '}' };
        let after = from.get(1..).unwrap_or_default();
        if brace == '}' || after.starts_with('{') {
            literal.push(brace);
            rest = after.strip_prefix(brace).unwrap_or(after);
            continue;
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(Wrong::new(
                "has a '{' that is not closed",
                "write '}' behind the variable, or \"{{\" for a brace",
            ));
        };
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(std::mem::take(&mut literal)));
        }
        parts.push(TemplatePart::Variable(variable(name, moment)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TemplatePart::Text(literal));
    }
    Ok(Template { parts })
}

fn variable(name: &str, moment: Moment) -> Result<Variable, Wrong> {
    let known = || Variable::NAMES.iter().filter(|(_, variable)| is_known(*variable, moment)).map(|(name, _)| *name);
    let shown = super::report::shortened(name, 40);
    let Some((_, variable)) = Variable::NAMES.iter().find(|(word, _)| *word == name) else {
        let known: Vec<&str> = known().collect();
        let remedy = match super::reader::closest(name, &known) {
            Some(meant) => format!("did you mean {{{meant}}}?"),
            None => format!("the variables are {}; write \"{{{{\" for a brace", known.join(", ")),
        };
        return Err(Wrong::new(format!("there is no variable {{{shown}}}"), remedy));
    };
    if !is_known(*variable, moment) {
        return Err(Wrong::new(
            format!("{{{shown}}} is not known yet when this is made"),
            "use it in response_headers, or leave it out",
        ));
    }
    Ok(*variable)
}

fn is_known(variable: Variable, moment: Moment) -> bool {
    match (variable, moment) {
        (Variable::Server, Moment::Asked | Moment::Sent) | (Variable::Pool, Moment::Asked) => false,
        (_, Moment::Asked | Moment::Sent | Moment::Answered) => true,
    }
}

/// Reads `{ set = { … }, add = { … }, remove = [ … ] }`.
pub(super) fn edits(mut table: Table<'_>, moment: Moment) -> HeaderEdits {
    let names = table.optional("remove").map(|value| value.list(EDITS_MAX)).unwrap_or_default();
    let edits = HeaderEdits {
        remove: names.into_iter().filter_map(|value| Some(value.parsed(editable)?.value)).collect(),
        set: table.block("set").map(|table| fields(table, moment)).unwrap_or_default(),
        add: table.block("add").map(|table| fields(table, moment)).unwrap_or_default(),
    };
    table.finish();
    edits
}

/// Reads a table of names of headers, and what they say.
pub(super) fn fields(table: Table<'_>, moment: Moment) -> Vec<(String, Template)> {
    let mut read = Vec::new();
    for (name, value) in table.into_entries(EDITS_MAX) {
        let name = value.key_parsed(name, editable);
        let is_location = name.as_deref() == Some("location");
        let template = value.parsed(|text| match field_value(text, moment) {
            Ok(template) if is_location => route_values::location(template),
            read => read,
        });
        if let (Some(name), Some(template)) = (name, template) {
            read.push((name, template.value));
        }
    }
    read
}

fn field_value(text: &str, moment: Moment) -> Result<Template, Wrong> {
    let template = template(text, moment)?;
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(Wrong::new("must not begin or end with a space, which no header keeps", "leave the space out"));
    }
    Ok(template)
}

/// The name of a header that may be edited, in lower case.
fn editable(text: &str) -> Result<String, Wrong> {
    let name = values::header_name(text)?;
    if UNTOUCHABLE.contains(&name.as_str()) {
        let remedy = match name.as_str() {
            "host" => "leave it out; rewrite = { host = \"…\" } of a route changes the host that servers see",
            _ => "leave it out; Baton says itself how a message is framed and a connection used",
        };
        return Err(Wrong::new("must not be a header that frames messages or belongs to one connection", remedy));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_texts_and_variables_in_turn() {
        let read = template("a{client_ip}{path}b", Moment::Sent).unwrap();
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        let expected =
            [text("a"), TemplatePart::Variable(Variable::ClientIp), TemplatePart::Variable(Variable::Path), text("b")];
        assert_eq!(read.parts, expected);
        assert_eq!(template("{{a}}", Moment::Sent).unwrap(), Template::fixed("{a}"));
        assert_eq!(template("a}b", Moment::Sent).unwrap(), Template::fixed("a}b"));
        assert_eq!(template("", Moment::Sent).unwrap().as_fixed(), Some(""));
    }

    #[test]
    fn variables_are_known_when_what_they_say_is() {
        let rule = |text, moment| template(text, moment).unwrap_err().rule;
        assert_eq!(rule("{nope}", Moment::Answered), "there is no variable {nope}");
        assert_eq!(rule("{", Moment::Answered), "has a '{' that is not closed");
        assert_eq!(rule("{server}", Moment::Sent), "{server} is not known yet when this is made");
        assert_eq!(rule("{pool}", Moment::Asked), "{pool} is not known yet when this is made");
        assert_eq!(rule("a\r\nb", Moment::Asked), "must have no line ends and no control characters");
        for (name, _) in Variable::NAMES {
            assert!(template(&format!("{{{name}}}"), Moment::Answered).is_ok(), "{name}");
        }
    }

    #[test]
    fn headers_that_frame_are_left_alone() {
        for name in
            ["Connection", "content-length", "Transfer-Encoding", "Host", "TE", "Upgrade", "trailer", "Keep-Alive"]
        {
            assert!(editable(name).is_err(), "{name}");
        }
        assert_eq!(editable("X-Forwarded-For").unwrap(), "x-forwarded-for");
        assert!(editable("a b").is_err());
    }
}
