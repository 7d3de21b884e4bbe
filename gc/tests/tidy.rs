//! Style as a test: what the house rules say and no lint checks, over all files of the workspace.
//!
//! Each check lists every violation with its file and line, so that one run shows them all. The
//! rules are in `CONTRIBUTING.md`.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a source file: more has two concepts in it.
const MOST_LINES: usize = 600;
/// Lines above an `unsafe` block in which its argument is looked for.
const SAFETY_LINES: usize = 3;
/// Lines above a strong ordering in which its partner is looked for (a `compare_exchange` spans five).
const ORDERING_LINES: usize = 6;

/// A text file of the workspace.
struct Source {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|kind| kind == "rs")
    }

    fn is_markdown(&self) -> bool {
        self.path.extension().is_some_and(|kind| kind == "md")
    }

    fn lies_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// A file that holds tests only.
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "models")
            || self
                .path
                .file_stem()
                .is_some_and(|name| ["tests", "testing", "models"].iter().any(|test| name == *test))
    }

    /// Lines before the unit tests at the file's end.
    fn production_lines(&self) -> Vec<&str> {
        let lines: Vec<_> = self.text.lines().collect();
        let tests =
            lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
        let end = match tests {
            Some(at) if lines[at + 1].ends_with('{') => at,
            _ => lines.len(),
        };
        lines[..end].to_vec()
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// All files that people write: sources, documents, manifests, scripts.
fn sources() -> Vec<Source> {
    let mut sources = vec![];
    collect(&root(), &mut sources);
    assert!(sources.iter().filter(|source| source.is_rust()).count() > 40, "the workspace was not found");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).expect("the workspace can be read");
    for path in entries.map(|entry| entry.expect("the workspace can be read").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                collect(&path, sources);
            }
        } else if name == "run" || [".rs", ".md", ".toml", ".yml"].iter().any(|kind| name.ends_with(kind)) {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            sources
                .push(Source { path: path.strip_prefix(root()).expect("below the root").to_owned(), text });
        }
    }
}

/// The part of a line that is code: no comment, no string.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            _ if !in_string => code.push(character),
            _ => {}
        }
    }
    code
}

/// Whether a comment on line `at`, on one of the `lines` lines before it, or in the comment that these
/// cut through, contains one of `words`.
fn is_explained(text: &[&str], at: usize, lines: usize, words: &[&str]) -> bool {
    let is_comment = |line: usize| text[line].trim_start().starts_with("//");
    let mut begin = at.saturating_sub(lines);
    while begin > 0 && is_comment(begin) {
        begin -= 1;
    }
    text[begin..=at].iter().any(|line| {
        line.split_once("//").is_some_and(|(_, comment)| words.iter().any(|word| comment.contains(word)))
    })
}

fn report(what: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what}:\n  {}\n", violations.join("\n  "));
}

#[test]
fn files_are_short() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > MOST_LINES).then(|| format!("{}: {lines} lines", source.path.display()))
    };
    let violations: Vec<_> = sources().iter().filter(|source| source.is_rust()).filter_map(long).collect();
    report("longer than 600 lines", &violations);
}

#[test]
fn modules_say_what_they_are() {
    let silent = |source: &&Source| {
        let first = source.text.lines().next().unwrap_or_default();
        !first.starts_with("//!") && !first.starts_with("#![doc")
    };
    let in_crates = |source: &&Source| {
        source.is_rust()
            && source.path.components().any(|part| part.as_os_str() == "src")
            && !source.is_test()
    };
    let violations: Vec<_> = sources()
        .iter()
        .filter(in_crates)
        .filter(silent)
        .map(|source| source.path.display().to_string())
        .collect();
    report("no module header", &violations);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let mut violations = vec![];
    for source in sources().iter().filter(|source| source.is_rust()) {
        let lines: Vec<_> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = code(line);
            let is_unsafe = code.contains("unsafe {") || code.contains("unsafe impl");
            if is_unsafe && !is_explained(&lines, at, SAFETY_LINES, &["SAFETY:"]) {
                violations.push(source.at(at));
            }
        }
    }
    report("unsafe without a SAFETY comment", &violations);
}

#[test]
fn strong_orderings_name_their_partner() {
    let strong = ["Ordering::Acquire", "Ordering::Release", "Ordering::AcqRel", "Ordering::SeqCst"];
    let words =
        ["pairs with", "pair with", "Pairs with", "Pair with", "Acquire", "Release", "AcqRel", "SeqCst"];
    let mut violations = vec![];
    let collector = |source: &&Source| {
        source.is_rust() && source.lies_in(&["gc/src", "runtime/src"]) && !source.is_test()
    };
    for source in sources().iter().filter(collector) {
        let lines = source.production_lines();
        for (at, line) in lines.iter().enumerate() {
            let code = code(line);
            if strong.iter().any(|ordering| code.contains(ordering))
                && !is_explained(&lines, at, ORDERING_LINES, &words)
            {
                violations.push(source.at(at));
            }
        }
    }
    report("strong ordering without its partner", &violations);
}

#[test]
fn nothing_is_left_to_do() {
    // In two parts, so that this file does not contain them.
    let marks =
        [("to", "do!("), ("unimple", "mented!("), ("#[ign", "ore"), ("FIX", "ME"), ("TO", "DO"), ("XX", "X")];
    let marks = marks.map(|(begin, end)| [begin, end].concat());
    let mut violations = vec![];
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (at, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                violations.push(source.at(at));
            }
        }
    }
    report("left to do", &violations);
}

#[test]
fn no_path_of_one_machine() {
    let homes = [("/ho", "me/"), ("/wo", "rk/"), ("/ro", "ot/"), ("/Us", "ers/")];
    let homes = homes.map(|(begin, end)| [begin, end].concat());
    let mut violations = vec![];
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            if homes.iter().any(|home| line.contains(home.as_str())) {
                violations.push(source.at(at));
            }
        }
    }
    report("path of one machine", &violations);
}

#[test]
fn only_sys_calls_the_system() {
    let outside = |source: &&Source| {
        source.is_rust() && source.lies_in(&["gc/src"]) && !source.lies_in(&["gc/src/sys"])
    };
    let mut violations = vec![];
    for source in sources().iter().filter(outside) {
        for (at, line) in source.production_lines().iter().enumerate() {
            let code = code(line);
            if ["libc::", "nix::", "userfaultfd_sys", "userfaultfd::"].iter().any(|name| code.contains(name))
            {
                violations.push(source.at(at));
            }
        }
    }
    report("system call outside gc/src/sys", &violations);
}

#[test]
fn documents_link_to_what_exists() {
    let mut violations = vec![];
    for source in sources().iter().filter(|source| source.is_markdown()) {
        let folder = root().join(&source.path).parent().expect("a file lies in a folder").to_owned();
        let mut in_code = false;
        for (at, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for target in links(line) {
                let path = target.split('#').next().unwrap_or_default();
                let is_foreign = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
                if !is_foreign && !folder.join(path).exists() {
                    violations.push(format!("{}: {target}", source.at(at)));
                }
            }
        }
    }
    report("link to nothing", &violations);
}

/// Targets of `[text](target)` in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

#[test]
fn code_is_told_from_comments_and_strings() {
    assert_eq!(code("let a = 1; // unsafe {"), "let a = 1; ");
    assert_eq!(code("print(\"unsafe { \\\" //\"); call()"), "print(); call()");
    let text = ["// Release: pairs with the Acquire in `f`.", "x", "y"];
    assert!(is_explained(&text, 2, 2, &["pairs with"]));
    assert!(!is_explained(&text, 2, 1, &["pairs with"]));
    assert_eq!(links("see [a](b.md) and [c](d.md#e)").collect::<Vec<_>>(), ["b.md", "d.md#e"]);
}
