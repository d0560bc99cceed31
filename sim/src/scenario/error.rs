//! Why a scenario is refused, and at which line, column and key of its file.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// Why a scenario is refused: which file, where in it, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ScenarioError {
    /// As it was named to us.
    pub file: String,
    /// Line and column, from 1 on; none when it is about the file as a whole.
    pub place: Option<(usize, usize)>,
    /// As `fault.2.pick`; empty when no key is to blame. Entries of a list are counted from 1 on.
    pub key: String,
    /// What was expected.
    pub message: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// What is wrong with the value at a key; where that stands in the file is found later.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Keys from the outermost on; entries of a list by number, from 1 on.
    pub(super) key: Vec<String>,
    pub(super) message: String,
}

impl Wrong {
    /// At a key of the `number`-th entry of a list of tables, counted from 0 on.
    pub(super) fn in_entry(list: &str, number: usize, key: &str, message: impl Into<String>) -> Self {
        let key = [list.to_owned(), (number + 1).to_string(), key.to_owned()];
        Self { key: key.into_iter().filter(|step| !step.is_empty()).collect(), message: message.into() }
    }

    /// At a key of a table.
    pub(super) fn at(table: &str, key: &str, message: impl Into<String>) -> Self {
        let key = [table, key].into_iter().filter(|step| !step.is_empty());
        Self { key: key.map(str::to_owned).collect(), message: message.into() }
    }

    /// With the place that its key has in the file.
    pub(super) fn place(self, text: &str, file: &str) -> ScenarioError {
        // A key that is missing stands where its table begins.
        let known = |place: &&Place| self.key.starts_with(&place.key);
        let all = places(text);
        let at = all.iter().filter(known).max_by_key(|place| place.key.len()).map(|place| place.at);
        ScenarioError {
            file: file.to_owned(),
            place: at.map(|at| line_and_column(text, at)),
            key: self.key.join("."),
            message: self.message,
        }
    }
}

impl ScenarioError {
    /// From what the TOML reader says.
    pub(crate) fn syntax(error: &toml::de::Error, text: &str, file: &str) -> Self {
        let at = error.span().map(|span| span.start);
        let key = at.and_then(|at| {
            let before = places(text).into_iter().filter(|place| place.at <= at);
            before.max_by_key(|place| (place.at, place.key.len())).map(|place| place.key.join("."))
        });
        Self {
            file: file.to_owned(),
            place: at.map(|at| line_and_column(text, at)),
            key: key.unwrap_or_default(),
            message: error.message().trim().to_owned(),
        }
    }

    /// About the file as a whole.
    pub(crate) fn whole(file: &str, message: String) -> Self {
        Self { file: file.to_owned(), place: None, key: String::new(), message }
    }
}

/// Where a key, or an entry of a list, begins.
struct Place {
    key: Vec<String>,
    at: usize,
}

/// All of them; none when the text is no TOML.
fn places(text: &str) -> Vec<Place> {
    let mut places = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        collect(&DeValue::Table(table.into_inner()), &[], &mut places);
    }
    places
}

fn collect(value: &DeValue<'_>, key: &[String], places: &mut Vec<Place>) {
    let mut add = |step: String, at: usize, value: &DeValue<'_>| {
        let key: Vec<String> = key.iter().cloned().chain([step]).collect();
        places.push(Place { key: key.clone(), at });
        collect(value, &key, places);
    };
    match value {
        DeValue::Table(table) => {
            table.iter().for_each(|(name, value)| {
                add(name.get_ref().to_string(), name.span().start, value.get_ref())
            });
        }
        DeValue::Array(list) => {
            (1u32..).zip(list.iter()).for_each(|(number, entry)| {
                add(number.to_string(), entry.span().start, entry.get_ref());
            });
        }
        _ => {}
    }
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
