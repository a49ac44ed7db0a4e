//! ARCHITECTURE.md is true: every source file has a line there, a room imports only from rooms
//! before it in the order of its crate, and no two modules of a module import from each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemMod, ItemUse, UseTree,
    visit::{self, Visit},
};

/// Crates, with what their modules lie in.
const CRATES: &[&str] = &["dio-trace-common", "dio-trace-ebpf", "dio-trace", "xtask"];

type Module = Vec<String>;

/// A module that imports from another one of its crate.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: Module,
    to: Module,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// Source files of a crate, relative to its `src`.
fn files(src: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![src.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path.strip_prefix(src).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn module(file: &Path) -> Module {
    let mut parts: Module =
        file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// True of what only tests and fuzz targets are built with.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let words = attribute.meta.require_list().map(|list| list.tokens.to_string());
        attribute.path().is_ident("cfg")
            && words.is_ok_and(|words| words == "test" || words == "any (test , fuzzing)")
    })
}

/// What a file imports, and which of its modules are for tests.
struct Reader {
    module: Module,
    imports: Vec<Module>,
    for_tests: Vec<Module>,
}

impl Reader {
    /// A path that begins with `crate`, `self` or `super`, from the root of the crate.
    fn path(&mut self, words: &[String]) {
        let mut base = self.module.clone();
        let mut words = words.iter().peekable();
        match words.peek().map(|word| word.as_str()) {
            Some("crate") => base.clear(),
            Some("super") => {
                base.pop();
            }
            Some("self") => {}
            _ => return,
        }
        words.next();
        while words.next_if(|word| *word == "super").is_some() {
            base.pop();
        }
        base.extend(words.cloned());
        self.imports.push(base);
    }

    fn tree(&mut self, tree: &UseTree, words: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                words.push(path.ident.to_string());
                self.tree(&path.tree, words);
                words.pop();
            }
            UseTree::Name(name) => self.leaf(words, &name.ident.to_string()),
            UseTree::Rename(name) => self.leaf(words, &name.ident.to_string()),
            UseTree::Glob(_) => self.path(words),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, words)),
        }
    }

    fn leaf(&mut self, words: &[String], name: &str) {
        let mut all = words.to_vec();
        if name != "self" || words.is_empty() {
            all.push(name.to_owned());
        }
        self.path(&all);
    }

    /// Paths in the arguments of a macro, which are tokens only.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut words: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(word) if words.last().is_none_or(|last| last == "::") => {
                    words.push(word.to_string());
                    continue;
                }
                TokenTree::Punct(colon) if colon.as_char() == ':' => {
                    match words.last().map(String::as_str) {
                        Some(":") => words.last_mut().unwrap().push(':'),
                        Some(_) => words.push(":".to_owned()),
                        None => {}
                    }
                    continue;
                }
                TokenTree::Group(ref group) => self.tokens(group.stream()),
                _ => {}
            }
            self.words(&mut words);
            if let TokenTree::Ident(word) = token {
                words.push(word.to_string());
            }
        }
        self.words(&mut words);
    }

    fn words(&mut self, words: &mut Vec<String>) {
        words.retain(|word| !word.starts_with(':'));
        self.path(words);
        words.clear();
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        } else if let Item::Mod(item) = item {
            let mut module = self.module.clone();
            module.push(item.ident.to_string());
            self.for_tests.push(module);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&words);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }
}

/// Imports between the modules of a crate, tests left out.
fn imports(crate_name: &str) -> BTreeSet<Import> {
    let src = root().join(crate_name).join("src");
    let mut found = Vec::new();
    let mut for_tests = Vec::new();
    let files = files(&src);
    let modules: BTreeSet<Module> = files.iter().map(|file| module(file)).collect();
    for file in &files {
        let text = fs::read_to_string(src.join(file)).unwrap();
        let parsed = syn::parse_file(&text).unwrap();
        let mut reader =
            Reader { module: module(file), imports: Vec::new(), for_tests: Vec::new() };
        reader.visit_file(&parsed);
        found.extend(reader.imports.into_iter().map(|to| Import { from: module(file), to }));
        for_tests.extend(reader.for_tests);
    }
    let in_tests = |of: &Module| for_tests.iter().any(|test| of.starts_with(test));
    // What is imported is an item of a module: the longest name that is a module.
    let of_module = |mut import: Import| {
        while !import.to.is_empty() && !modules.contains(&import.to) {
            import.to.pop();
        }
        import
    };
    found
        .into_iter()
        .map(of_module)
        .filter(|import| !in_tests(&import.from) && !import.to.is_empty())
        .filter(|import| import.from != import.to)
        .collect()
}

/// The order of a crate's rooms: the list item that begins with its name, continuation lines
/// included.
fn order(crate_name: &str) -> Vec<String> {
    let page = page();
    let begin = format!("- `{crate_name}`: ");
    let mut lines = page.lines().skip_while(|line| !line.starts_with(&begin));
    let first = lines.next().and_then(|line| line.strip_prefix(&begin));
    let first = first.unwrap_or_else(|| panic!("ARCHITECTURE.md has no order of {crate_name}"));
    let rest = lines.take_while(|line| line.starts_with("  ")).map(str::trim);
    let text: Vec<&str> = std::iter::once(first).chain(rest).collect();
    text.join(" ").split('→').map(|room| room.trim().to_owned()).collect()
}

#[test]
fn a_room_imports_only_from_earlier_rooms() {
    let mut wrong = Vec::new();
    for name in CRATES {
        let order = order(name);
        let place = |room: &str| {
            let at = order.iter().position(|known| known == room);
            at.unwrap_or_else(|| panic!("the order of {name} has no `{room}`"))
        };
        for import in imports(name) {
            let (Some(from), Some(to)) = (import.from.first(), import.to.first()) else {
                continue; // the root of the crate has them all
            };
            if place(to) > place(from) {
                wrong.push(format!(
                    "{name}: {} from {}",
                    import.from.join("::"),
                    import.to.join("::")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn no_two_modules_of_a_module_import_from_each_other() {
    let mut wrong = Vec::new();
    for name in CRATES {
        // By parent: what its children import from each other.
        let mut levels: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for Import { from, to } in imports(name) {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                let level = levels.entry(from[..shared].to_vec()).or_default();
                level.entry(a.clone()).or_default().insert(b.clone());
            }
        }
        for (parent, graph) in &levels {
            for circle in circles(graph) {
                wrong.push(format!("{name}: {}: {}", parent.join("::"), circle.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
}

/// Groups of modules each of which reaches the others.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reaches = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(at) = open.pop() {
            for next in graph.get(&at).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|name| (name, reaches(name))).collect();
    let back = |a: &String, b: &String| all.get(b).is_some_and(|seen| seen.contains(a));
    all.iter()
        .filter(|(name, seen)| seen.contains(**name))
        .map(|(name, seen)| seen.iter().filter(|other| back(name, other)).cloned().collect())
        .collect()
}

#[test]
fn every_file_has_a_line() {
    let page = page();
    let mut missing = Vec::new();
    for name in CRATES {
        for file in files(&root().join(name).join("src")) {
            let path = format!("- `{name}/src/{}`: ", file.display());
            let lines = page.lines().filter(|line| line.starts_with(&path)).count();
            if lines != 1 {
                missing.push(format!("{path}: {lines} lines"));
            }
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md:\n{}", missing.join("\n"));
}

#[test]
fn no_line_names_a_file_that_is_gone() {
    for line in page().lines() {
        for path in line.split('`').filter(|word| word.ends_with(".rs") && word.contains("/src/")) {
            assert!(root().join(path).is_file(), "{path}");
        }
    }
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (a, b) in edges {
            graph.entry((*a).to_owned()).or_default().insert((*b).to_owned());
        }
        circles(&graph)
    };
    assert!(graph(&[("a", "b"), ("b", "c"), ("a", "c")]).is_empty());
    let found = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [["a", "b", "c"]]);
}

#[test]
fn imports_are_read_in_every_form() {
    let text = "
        use crate::{a::{self, b}, c};
        use super::d::*;
        #[cfg(test)] use crate::not;
        fn f() -> crate::e::E { note!(\"{}\", crate::g::h(1, self::i::j)) }
        #[cfg(test)] mod tests { use crate::nor; }
    ";
    let mut reader = Reader {
        module: vec!["room".to_owned(), "file".to_owned()],
        imports: Vec::new(),
        for_tests: Vec::new(),
    };
    reader.visit_file(&syn::parse_file(text).unwrap());
    let found: Vec<String> = reader.imports.iter().map(|path| path.join("::")).collect();
    for path in ["a", "a::b", "c", "room::d", "e::E", "g::h", "room::file::i::j"] {
        assert!(found.iter().any(|known| known == path), "{path} of {found:?}");
    }
    assert!(!found.iter().any(|path| path == "not" || path == "nor"), "{found:?}");
}
