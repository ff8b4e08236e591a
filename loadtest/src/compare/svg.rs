//! Bar charts.

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::peers::TIDEGATE;
use super::section::{Bar, Chart};
use super::spread::number;

const WIDTH: u32 = 860;
const TITLE_HEIGHT: i32 = 40;
const BAR_HEIGHT: i32 = 26;
const FOOT_HEIGHT: i32 = 20;

/// Where bars begin and the longest whisker ends.
const LEFT: i32 = 210;
const RIGHT: i32 = 720;

const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0x0b, 0x7a, 0x75);
const THEIRS: RGBColor = RGBColor(0x9a, 0xb3, 0xc9);
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x33);

/// All charts, one below the other.
///
/// # Errors
///
/// The drawing library refuses.
pub(crate) fn draw(charts: &[&Chart]) -> anyhow::Result<String> {
    let total: i32 = charts.iter().map(|chart| height(chart)).sum();
    let mut text = String::new();
    {
        let size = (WIDTH, u32::try_from(total.max(1))?);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        let mut top = 0;
        for chart in charts {
            one(&area, chart, top).map_err(|error| anyhow!("{error}"))?;
            top += height(chart);
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(text)
}

fn height(chart: &Chart) -> i32 {
    let bars = i32::try_from(chart.bars.len()).unwrap_or(0);
    TITLE_HEIGHT + bars * BAR_HEIGHT + FOOT_HEIGHT
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn one<'a>(area: &Area<'a>, chart: &Chart, top: i32) -> Drawn<'a> {
    let title = (FONT, 17).into_font().style(FontStyle::Bold).color(&INK);
    let heading = format!("{}, {}", chart.title, chart.unit);
    area.draw(&Text::new(heading, (12, top + 12), title))?;
    let figures = chart.bars.iter().filter_map(|bar| bar.figure);
    let most = figures
        .map(|figure| figure.high)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut y = top + TITLE_HEIGHT;
    for bar in &chart.bars {
        draw_bar(area, bar, most, y)?;
        y += BAR_HEIGHT;
    }
    Ok(())
}

fn draw_bar<'a>(area: &Area<'a>, bar: &Bar, most: f64, y: i32) -> Drawn<'a> {
    let text = |horizontal| {
        let style = (FONT, 14).into_font().color(&INK);
        style.pos(Pos::new(horizontal, VPos::Center))
    };
    let middle = y + BAR_HEIGHT / 2;
    let label = bar.label.clone();
    area.draw(&Text::new(label, (LEFT - 10, middle), text(HPos::Right)))?;
    let Some(figure) = bar.figure else {
        let none = "no figure".to_owned();
        return area.draw(&Text::new(none, (LEFT + 4, middle), text(HPos::Left)));
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most the width of the page"
    )]
    let x = |value: f64| LEFT + (f64::from(RIGHT - LEFT) * value / most).round() as i32;
    let colour = if bar.label.contains(TIDEGATE) {
        OURS
    } else {
        THEIRS
    };
    let (from, to) = ((LEFT, y + 4), (x(figure.median), y + BAR_HEIGHT - 4));
    area.draw(&Rectangle::new([from, to], colour.filled()))?;
    let line = |from, to| PathElement::new(vec![from, to], INK.stroke_width(1));
    let (low, high) = (x(figure.low), x(figure.high));
    area.draw(&line((low, middle), (high, middle)))?;
    for end in [low, high] {
        area.draw(&line((end, middle - 4), (end, middle + 4)))?;
    }
    let after = (high.max(to.0) + 8, middle);
    area.draw(&Text::new(number(figure.median), after, text(HPos::Left)))
}
