//! `--on-complete`: a command that is run once for each torrent that became complete.
//!
//! No shell sees it: words are split here, quotes hold them together, and what comes from a torrent is in variables of
//! the environment, so no name can become a command.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use taipei_engine::metainfo::Metainfo;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use crate::output::{escape, io_words};

/// The words of a command: split at spaces, held together by single or double quotes; a backslash takes the next
/// character as it is, but not within single quotes.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, Some(open)) if character == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    if words.is_empty() { Err("give a program".to_owned()) } else { Ok(words) }
}

/// The commands under way.
#[derive(Default)]
pub(crate) struct Running {
    children: Vec<(String, Child)>,
}

impl Running {
    /// Begins the command for a torrent. What it prints goes to standard error.
    ///
    /// # Errors
    /// A warning in words, when it does not begin.
    pub(crate) fn begin(&mut self, words: &[String], metainfo: &Metainfo, root: &Path) -> Result<(), String> {
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let hash = metainfo.info_hashes.v1.map(|hash| hash.to_string()).unwrap_or_default();
        let command = Command::new(program)
            .args(arguments)
            .env("TORRENT_NAME", &metainfo.name)
            .env("TORRENT_DIR", root)
            .env("TORRENT_INFOHASH", hash)
            .stdin(Stdio::null())
            .stdout(Stdio::from(io::stderr()))
            .spawn();
        let child = command.map_err(|error| warning(program, &io_words(&error)))?;
        self.children.push((program.clone(), child));
        Ok(())
    }

    /// Forgets those that have ended. What went wrong is told.
    pub(crate) fn look(&mut self, tell: impl Fn(&str)) {
        self.children.retain_mut(|(program, child)| {
            let Some(ended) = child.try_wait().transpose() else { return true };
            complaint(program, ended).iter().for_each(|words| tell(words));
            false
        });
    }

    /// Waits until all have ended, or long enough: what still runs then goes on by itself. What went wrong is told.
    pub(crate) async fn wait(&mut self, tell: impl Fn(&str)) {
        let deadline = Instant::now() + TIME_MAX;
        for (program, mut child) in self.children.drain(..) {
            match timeout_at(deadline, child.wait()).await {
                Ok(ended) => complaint(&program, ended).iter().for_each(|words| tell(words)),
                Err(_) => tell(&warning(&program, "still running")),
            }
        }
    }
}

fn complaint(program: &str, ended: io::Result<ExitStatus>) -> Option<String> {
    match ended {
        Ok(status) if status.success() => None,
        Ok(status) => Some(warning(program, &status.to_string())),
        Err(error) => Some(warning(program, &error.to_string())),
    }
}

fn warning(program: &str, what: &str) -> String {
    format!("warning: --on-complete {}: {what}", escape(program))
}

/// For all commands, after everything else is over.
const TIME_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together_and_nothing_is_a_shell() {
        let check = |text: &str, want: &[&str]| assert_eq!(words(text).unwrap(), want, "{text}");
        check("notify-send  done ", &["notify-send", "done"]);
        check("a 'b c' \"d \\\" e\" f\\ g ''", &["a", "b c", "d \" e", "f g", ""]);
        check("echo $(rm x) `y` ; z > w", &["echo", "$(rm", "x)", "`y`", ";", "z", ">", "w"]);
        check(r"'\n'", &[r"\n"]);
        assert!(["", "  ", "a 'b", "a \"b", "a\\"].iter().all(|text| words(text).is_err()));
    }
}
