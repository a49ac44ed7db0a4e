//! Runs other programs. Progress goes to stderr, and errors name the command line.
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Prints one line of progress to stderr, because stdout is for the result of the command.
pub(crate) fn say(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = quote(&command.get_program().to_string_lossy());
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quote(&arg.to_string_lossy()));
    }
    line
}

/// Quotes one word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a command with its output on our terminal. Fails if its exit status is not 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a command and returns its stdout. If it fails, its stderr is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("`{line}` failed ({}): {}", out.status, mask_hosts(stderr.trim()));
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{line}` printed invalid UTF-8"))
}

/// Runs a command with this input, and returns what it printed and its exit status.
pub(crate) fn fed(command: &mut Command, input: &str) -> Result<Output> {
    let line = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    child.stdin.take().context("the program has no input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// A path as a word of a command line.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The path of a program. The sbin folders are searched too, because the PATH of an ordinary user
/// lacks them.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Whether a program is statically linked (has no interpreter), so that it runs in an initramfs.
pub(crate) fn is_static(path: &Path) -> bool {
    use object::read::elf::{FileHeader, ProgramHeader};
    let Ok(bytes) = fs::read(path) else { return false };
    let Ok(header) = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes) else {
        return false;
    };
    let Ok(endian) = header.endian() else { return false };
    header
        .program_headers(endian, &*bytes)
        .is_ok_and(|all| all.iter().all(|one| one.p_type(endian) != object::elf::PT_INTERP))
}

/// Replaces the host of each address by `HOST`: which mirrors a machine uses does not belong in a
/// log.
pub(crate) fn mask_hosts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(tail.len());
        out.push_str("HOST");
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_hosts() {
        assert_eq!(
            mask_hosts("Err http://a.b:80/x y https://c"),
            "Err http://HOST/x y https://HOST"
        );
        assert_eq!(mask_hosts("nothing"), "nothing");
    }

    #[test]
    fn quotes_for_the_shell() {
        assert_eq!(quote("a-b/c"), "a-b/c");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
