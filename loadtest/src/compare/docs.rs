//! The page that holds the last run: each section in place of an older one of its name.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::markdown;
use super::section::{Chart, Comparison, Section};
use super::svg;

/// Between these the page is written by a comparison.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Every section begins with such a line.
const SECTION: &str = "<!-- section ";

/// Sees to it early that [`update`] will not fail after an hour of measuring.
///
/// # Errors
///
/// The page cannot be read or written, or lacks the two marks.
pub(crate) fn check(file: &Path) -> anyhow::Result<()> {
    replace(&read(file)?, Vec::new())?;
    let opened = fs::OpenOptions::new().append(true).open(file);
    opened.with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Puts every section into the page, and its chart beside it, in a directory of the page's name.
///
/// # Errors
///
/// The page cannot be read or written, or lacks the two marks.
pub(crate) fn update(file: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let page = read(file)?;
    let charts = file.with_extension("");
    let mut sections = Vec::new();
    for section in &comparison.sections {
        let key = key(section);
        let mut text = markdown::of_section(section, &comparison.conditions);
        if !section.charts.is_empty() {
            fs::create_dir_all(&charts)?;
            let all: Vec<&Chart> = section.charts.iter().collect();
            fs::write(charts.join(format!("{key}.svg")), svg::draw(&all)?)?;
            let directory = charts.file_name().unwrap_or_default().display();
            text.push_str(&format!("![{}]({directory}/{key}.svg)\n", section.title));
        }
        sections.push((key, text));
    }
    let page = replace(&page, sections)?;
    fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))
}

/// Names a section among those of all numbers of workers.
fn key(section: &Section) -> String {
    match section.workers {
        0 => section.name.clone(),
        workers => format!("{}-{workers}", section.name),
    }
}

fn replace(page: &str, new: Vec<(String, String)>) -> anyhow::Result<String> {
    let marks = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (within, after) = rest.split_once(END)?;
        Some((before, within, after))
    });
    let Some((before, within, after)) = marks else {
        bail!("the page lacks the marks {BEGIN} and {END}");
    };
    let mut sections: Vec<(String, String)> = within
        .split(SECTION)
        .skip(1)
        .filter_map(|section| {
            let (key, text) = section.split_once(" -->\n")?;
            Some((key.to_owned(), text.to_owned()))
        })
        .collect();
    for (key, text) in new {
        match sections.iter_mut().find(|(old, _)| *old == key) {
            Some((_, old)) => *old = text,
            None => sections.push((key, text)),
        }
    }
    let mut page = format!("{before}{BEGIN}\n\n");
    for (key, text) in sections {
        page.push_str(&format!("{SECTION}{key} -->\n{}\n\n", text.trim_end()));
    }
    page.push_str(END);
    page.push_str(after);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(key: &str, text: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), text.to_owned())]
    }

    #[test]
    fn a_section_takes_the_place_of_its_older_self_and_leaves_the_others() {
        let page = format!("# Page\n\n{BEGIN}\n{END}\n\nThe end.\n");
        let page = replace(&page, new("a-1", "first")).unwrap();
        let page = replace(&page, new("b-1", "second")).unwrap();
        let page = replace(&page, new("a-1", "third")).unwrap();
        assert_eq!(
            page,
            format!(
                "# Page\n\n{BEGIN}\n\n<!-- section a-1 -->\nthird\n\n\
                 <!-- section b-1 -->\nsecond\n\n{END}\n\nThe end.\n"
            )
        );
    }

    #[test]
    fn a_page_without_marks_is_left_alone() {
        assert!(replace("# Page\n", new("a-1", "first")).is_err());
    }
}
