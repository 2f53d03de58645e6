//! What `docs/architecture.md` says, from its tables.

/// The layers of one crate.
pub struct Layers {
    /// Where its modules are, from the repository's root.
    pub folder: String,
    /// The modules of each layer, the lowest first.
    pub rows: Vec<Vec<String>>,
}

/// The tables below "Who may use whom": one below each heading that names a folder.
pub fn layers(text: &str) -> Vec<Layers> {
    let mut layers: Vec<Layers> = Vec::new();
    for line in section(text, "## Who may use whom") {
        if let Some(heading) = line.strip_prefix("### ") {
            layers.push(Layers {
                folder: quoted(heading).concat(),
                rows: Vec::new(),
            });
        } else if let (Some(table), Some(cells)) = (layers.last_mut(), row(line)) {
            table
                .rows
                .push(cells.last().map_or_else(Vec::new, |cell| quoted(cell)));
        }
    }
    layers
}

/// The places in the table below "Code map".
pub fn code_map(text: &str) -> Vec<String> {
    section(text, "## Code map")
        .filter_map(row)
        .filter_map(|cells| cells.first().map(|cell| quoted(cell)))
        .flatten()
        .collect()
}

fn section<'a>(text: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The cells of a table's row that names something.
fn row(line: &str) -> Option<Vec<&str>> {
    let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
    line.contains('`').then(|| cells.split(" | ").collect())
}

/// What stands between back-quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}
