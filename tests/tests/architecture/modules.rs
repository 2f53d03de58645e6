//! What the modules of a crate use, from their parsed source. Tests inside them do not count.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, File, ItemMod, Macro, Meta, UseTree,
    visit::{Visit, visit_item_mod},
};

/// A file's endings that make it code.
const CODE: [&str; 4] = ["rs", "py", "js", "mjs"];
/// Folders that hold what is built, fetched or recorded.
const NOT_OURS: [&str; 5] = ["target", "node_modules", "corpus", "finds", "artifacts"];

/// A module at the top of a crate, with everything below it.
#[derive(Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// The other modules at the top of the same crate that it names.
    pub uses: BTreeSet<String>,
    /// Paths into other crates, `a::b::c`.
    pub outside: BTreeSet<String>,
}

impl Module {
    /// The modules of the crate whose sources are in `folder`, but for its root.
    pub fn all(folder: &Path) -> Vec<Self> {
        let mut modules: Vec<Self> = Vec::new();
        for file in sources(folder) {
            let place = file.strip_prefix(folder).unwrap().with_extension("");
            let mut path: Vec<String> = place
                .components()
                .map(|part| part.as_os_str().to_str().unwrap().to_owned())
                .collect();
            if path.last().is_some_and(|name| name == "mod") {
                path.pop();
            }
            let rust = file.extension().is_some_and(|ending| ending == "rs");
            let root = ["lib", "main"].contains(&path[0].as_str());
            if !rust || root || path.last().is_some_and(|name| name == "tests") {
                continue;
            }
            let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let paths = Paths::of(&parsed);
            let at = modules
                .iter()
                .position(|module| module.name == path[0])
                .unwrap_or_else(|| {
                    modules.push(Self {
                        name: path[0].clone(),
                        uses: BTreeSet::new(),
                        outside: BTreeSet::new(),
                    });
                    modules.len() - 1
                });
            for used in paths.0 {
                modules[at].take(&path, &used);
            }
        }
        let names: BTreeSet<String> = modules.iter().map(|module| module.name.clone()).collect();
        for module in &mut modules {
            module.uses.retain(|used| names.contains(used));
        }
        modules
    }

    /// Takes a path that the file at `file` names.
    fn take(&mut self, file: &[String], used: &[String]) {
        let mut at = file.to_vec();
        let mut rest = used;
        match rest.first().map(String::as_str) {
            Some("crate") => at.clear(),
            Some("self") => {}
            Some("super") => {
                while let Some(("super", further)) = rest
                    .split_first()
                    .map(|(first, further)| (first.as_str(), further))
                {
                    at.pop();
                    rest = further;
                }
                return self.take_from(&at, rest);
            }
            _ => {
                self.outside.insert(used.join("::"));
                return;
            }
        }
        self.take_from(&at, rest.get(1..).unwrap_or_default());
    }

    fn take_from(&mut self, at: &[String], rest: &[String]) {
        if let Some(top) = at.iter().chain(rest).next()
            && *top != self.name
        {
            self.uses.insert(top.clone());
        }
    }
}

/// Every path a file names.
#[derive(Default)]
struct Paths(BTreeSet<Vec<String>>);

impl Paths {
    fn of(file: &File) -> Self {
        let mut paths = Self::default();
        paths.visit_file(file);
        paths
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| {
            let mut path = before.to_vec();
            path.push(name);
            path
        };
        match tree {
            UseTree::Path(part) => self.tree(&with(part.ident.to_string()), &part.tree),
            UseTree::Name(name) => {
                self.0.insert(with(name.ident.to_string()));
            }
            UseTree::Rename(name) => {
                self.0.insert(with(name.ident.to_string()));
            }
            UseTree::Glob(_) => {
                self.0.insert(before.to_vec());
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree);
                }
            }
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        if !module.attrs.iter().any(only_in_tests) {
            visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        if path.segments.len() > 1 {
            self.0.insert(names.collect());
        }
        syn::visit::visit_path(self, path);
    }

    // What a macro is given is not parsed: its tokens are read.
    fn visit_macro(&mut self, invoked: &'a Macro) {
        self.visit_path(&invoked.path);
        let text = invoked.tokens.to_string();
        for (at, _) in text.match_indices("crate :: ") {
            let path = text.get(at..).unwrap_or_default().split(" :: ");
            let names = path.map_while(|part| part.split_whitespace().next());
            self.0.insert(names.map(str::to_owned).take(2).collect());
        }
    }
}

fn only_in_tests(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list)
        if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
}

/// Every file of code below `folder`.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().unwrap();
        if path.is_dir() {
            if !NOT_OURS.contains(&name) && !name.starts_with('.') {
                files.extend(sources(&path));
            }
        } else if path
            .extension()
            .is_some_and(|ending| CODE.iter().any(|code| ending == *code))
        {
            files.push(path);
        }
    }
    files.sort();
    files
}
