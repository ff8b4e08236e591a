//! Latency by percentile, drawn.

use std::path::Path;

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::report::Report;

/// Width and height in pixels.
const SIZE: (u32, u32) = (900, 480);

/// Points between one power of ten of the tail and the next.
const STEPS: u32 = 40;

/// Nines beyond which no run has enough answers.
const NINES_MAX: u32 = 6;

/// Draws the share of answers against the latency they stayed within, the tail stretched: 90 %,
/// 99 % and 99.9 % lie equally far apart.
///
/// # Errors
/// There is nothing to draw, or the file cannot be written.
pub(super) fn draw(file: &Path, report: &Report, latency: &Histogram<u64>) -> anyhow::Result<()> {
    let name = file.display();
    curve(file, report, latency).map_err(|error| anyhow!("cannot draw {name}: {error}"))
}

fn curve(
    file: &Path,
    report: &Report,
    latency: &Histogram<u64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = points(latency);
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Err("there was no answer".into());
    };
    let right = last.0.max(1.0);
    let (bottom, top) = (first.1 * 0.8, last.1 * 1.25);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption(report), ("sans-serif", 16))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..right, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency, ms")
        .x_labels(nines(latency) as usize + 1)
        .x_label_formatter(&|nines| percent(*nines))
        .y_label_formatter(&|millis| trimmed(&format!("{millis:.3}")))
        .draw()?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    area.present()?;
    Ok(())
}

fn caption(report: &Report) -> String {
    let Report {
        url,
        protocol,
        connections,
        rate,
        answers,
        ..
    } = report;
    format!("{url} over {protocol}: {connections} connections, {rate:.0}/s, {answers} answers")
}

/// The nines that so many answers can show, at least one.
fn nines(latency: &Histogram<u64>) -> u32 {
    latency
        .len()
        .checked_ilog10()
        .unwrap_or(0)
        .clamp(1, NINES_MAX)
}

/// How many nines, and the latency in milliseconds.
fn points(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    (0..=nines(latency) * STEPS)
        .map(|step| f64::from(step) / f64::from(STEPS))
        .map(|nines| {
            let micros = latency.value_at_quantile(1.0 - 10_f64.powf(-nines));
            (nines, micros.max(1) as f64 / 1e3)
        })
        .collect()
}

/// As people write it: 1 is 90%, 2 is 99%, 3 is 99.9%.
fn percent(nines: f64) -> String {
    let percent = 100.0 - 10_f64.powf(2.0 - nines);
    trimmed(&format!("{percent:.4}")) + "%"
}

/// Without the zeros at the end of a fraction.
fn trimmed(number: &str) -> String {
    let number = number.trim_end_matches('0').trim_end_matches('.');
    number.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::tally::histogram;

    #[test]
    fn each_nine_is_written_as_its_percentile() {
        let texts: Vec<String> = [0.0, 1.0, 2.0, 3.0, 4.0].map(percent).into();
        assert_eq!(texts, ["0%", "90%", "99%", "99.9%", "99.99%"]);
    }

    #[test]
    fn the_curve_rises_and_ends_where_the_answers_do() {
        let mut latency = histogram();
        for micros in 1..=1000 {
            latency.record(micros).unwrap();
        }
        let points = points(&latency);
        assert!(points.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1));
        assert_eq!(points.last(), Some(&(3.0, 0.999)));
    }

    #[test]
    fn a_curve_is_drawn_without_fonts_of_the_system() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("curve.svg");
        let mut latency = histogram();
        latency.record(1234).unwrap();
        draw(&file, &Report::default(), &latency).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        assert!(svg.contains("percentile") && svg.contains("90%") && svg.contains("polyline"));
        assert!(draw(&file, &Report::default(), &histogram()).is_err());
    }
}
