//! A comparison as Markdown.

use std::fmt::Write as _;

use super::section::{Comparison, Conditions, Missing, Section, Table, Verdict};
use super::spread::number;

/// All of it.
pub(crate) fn whole(comparison: &Comparison) -> String {
    let mut text = "# What a request costs\n\n".to_owned();
    for section in &comparison.sections {
        text.push_str(&of_section(section, &comparison.conditions));
        text.push('\n');
    }
    text.push_str(&missing(&comparison.missing));
    text
}

/// One section, with everything it takes to judge it: it may be read alone.
pub(crate) fn of_section(section: &Section, conditions: &Conditions) -> String {
    let mut text = String::new();
    let workers = match section.workers {
        0 => String::new(),
        1 => ", one worker".to_owned(),
        more => format!(", {more} workers"),
    };
    paragraph(&mut text, &format!("### {}{workers}", section.title));
    paragraph(&mut text, &section.about);
    for one in &section.tables {
        paragraph(&mut text, &table(one));
    }
    if !section.verdicts.is_empty() {
        paragraph(&mut text, &table(&verdicts(&section.verdicts)));
    }
    if !section.problems.is_empty() {
        let marked = section
            .problems
            .iter()
            .map(|problem| format!("⚠ {problem}"));
        paragraph(&mut text, &list(marked));
    }
    if !section.notes.is_empty() {
        paragraph(&mut text, &list(section.notes.iter().cloned()));
    }
    paragraph(&mut text, &how(conditions, section.measured.as_deref()));
    paragraph(&mut text, &details(section));
    text
}

fn paragraph(text: &mut String, one: &str) {
    text.push_str(one.trim_end());
    text.push_str("\n\n");
}

fn list(items: impl Iterator<Item = String>) -> String {
    items
        .map(|item| format!("- {}\n", item.replace('\n', "\n  ")))
        .collect()
}

fn table(table: &Table) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&table.head);
    let rule = (0..table.head.len()).map(|column| if column == 0 { "---" } else { "---:" });
    let rule: Vec<&str> = rule.collect();
    text.push_str(&format!("| {} |\n", rule.join(" | ")));
    for row in &table.rows {
        text.push_str(&line(row));
    }
    text
}

fn verdicts(verdicts: &[Verdict]) -> Table {
    let head = ["budget", "bound", "measured", "holds"];
    let row = |verdict: &Verdict| {
        let sign = if verdict.at_most { "≤" } else { "≥" };
        let measured = verdict
            .figure
            .map(|figure| figure.show(|ratio| format!("{ratio:.2}")));
        let holds = match verdict.holds {
            Some(true) => "yes".to_owned(),
            Some(false) => "**no**".to_owned(),
            None => format!("not judged: {}", verdict.doubt.as_deref().unwrap_or("–")),
        };
        vec![
            verdict.what.clone(),
            format!("{sign} {}", number(verdict.bound)),
            measured.unwrap_or_else(|| "–".to_owned()),
            holds,
        ]
    };
    Table {
        head: head.map(str::to_owned).to_vec(),
        rows: verdicts.iter().map(row).collect(),
    }
}

fn how(conditions: &Conditions, measured: Option<&str>) -> String {
    let Conditions {
        date,
        processor,
        processors,
        connections,
        caveats,
        ..
    } = conditions;
    let usual = || conditions.measured(&format!("{connections} connections"));
    let measured = measured.map_or_else(usual, str::to_owned);
    let mut text =
        format!("Median (lowest–highest) {measured} on {processors} × {processor}. {date}.");
    for caveat in caveats {
        let _written = write!(text, " **{caveat}**");
    }
    text
}

fn details(section: &Section) -> String {
    let mut text = "<details><summary>Versions, commands, configurations</summary>\n\n".to_owned();
    for command in &section.commands {
        let _written = writeln!(text, "    {command}");
    }
    text.push('\n');
    for shown in &section.shown {
        let _written = writeln!(
            text,
            "**{}** {}\n\n    {}\n",
            shown.name, shown.version, shown.command
        );
        for (name, content) in &shown.files {
            let _written = writeln!(text, "`{name}`:\n\n```text\n{}\n```\n", content.trim_end());
        }
    }
    text.push_str("</details>");
    text
}

fn missing(missing: &[Missing]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let items = missing.iter().map(|one| {
        let Missing { name, why, package } = one;
        format!("{name} is missing ({why}); it comes with: {package}")
    });
    format!("### Missing\n\n{}", list(items))
}

#[cfg(test)]
mod tests {
    use super::super::spread::Spread;
    use super::*;

    #[test]
    fn a_budget_that_does_not_hold_says_so() {
        let figure = Spread::of([0.95, 0.97, 0.93]);
        let rows = verdicts(&[
            Verdict::new("a".into(), figure, 0.9, true),
            Verdict::new("b".into(), figure, 0.9, false),
            Verdict::new("c".into(), None, 0.9, true),
            Verdict::new("d".into(), figure, 0.9, false).doubted("disturbed"),
        ])
        .rows;
        let holds: Vec<&str> = rows.iter().map(|row| &*row[3]).collect();
        assert_eq!(
            holds,
            [
                "**no**",
                "yes",
                "not judged: errors",
                "not judged: disturbed"
            ]
        );
    }
}
