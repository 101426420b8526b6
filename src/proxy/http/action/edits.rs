//! Edits of headers, prepared: names and what has no variables are made once.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::variables::{self, View};
use crate::config::{HeaderEdits, Template};

/// The edits of one block of the configuration.
#[derive(Default)]
pub(super) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Prepared)>,
    add: Vec<(HeaderName, Prepared)>,
}

/// What a header is to say.
pub(super) enum Prepared {
    Fixed(HeaderValue),
    Made(Template),
}

impl Prepared {
    pub(super) fn new(template: &Template) -> Self {
        match template.as_fixed() {
            Some(text) => Prepared::Fixed(variables::field_value(text.as_bytes().to_vec())),
            None => Prepared::Made(template.clone()),
        }
    }

    pub(super) fn value(&self, view: &View<'_>) -> HeaderValue {
        match self {
            Prepared::Fixed(value) => value.clone(),
            Prepared::Made(template) => {
                let mut text = Vec::new();
                view.render(template, &mut text);
                variables::field_value(text)
            }
        }
    }

    fn needs_facts(&self) -> bool {
        match self {
            Prepared::Fixed(_) => false,
            Prepared::Made(template) => template.variables().any(variables::is_of_request),
        }
    }
}

impl Edits {
    /// Prepares a block. Its names were checked, so that none is lost here.
    pub(super) fn new(edits: &HeaderEdits) -> Self {
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        let fields = |fields: &[(String, Template)]| {
            fields.iter().filter_map(|(field, template)| Some((name(field)?, Prepared::new(template)))).collect()
        };
        Self {
            remove: edits.remove.iter().filter_map(name).collect(),
            set: fields(&edits.set),
            add: fields(&edits.add),
        }
    }

    /// Whether what a request asked for is a part of them.
    pub(super) fn needs_facts(&self) -> bool {
        self.set.iter().chain(&self.add).any(|(_, prepared)| prepared.needs_facts())
    }

    /// Does what they say.
    pub(super) fn apply(&self, view: &View<'_>, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, prepared) in &self.set {
            headers.insert(name, prepared.value(view));
        }
        for (name, prepared) in &self.add {
            headers.append(name, prepared.value(view));
        }
    }
}
