//! The samples as a picture: one small one for each quantity.

use std::path::Path;

use plotters::prelude::*;

use super::{Report, sample::Sample};

const SIZE: (u32, u32) = (1000, 780);
const COLUMNS: usize = 3;

/// Writes an SVG. What was warm-up is grey.
pub fn draw(path: &Path, report: &Report) -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let slopes = report.slopes();
    let panels = area.split_evenly((slopes.len().div_ceil(COLUMNS), COLUMNS));
    let all = report.settings.requests as f64 / 1e6;
    for (index, ((quantity, slope), panel)) in slopes.iter().zip(&panels).enumerate() {
        let value = |sample: &Sample| (sample.requests / 1e6, sample.values[index]);
        let greatest = report
            .samples
            .iter()
            .map(|sample| sample.values[index])
            .fold(1.0, f64::max);
        let unit = match quantity.unit {
            "" => String::new(),
            unit => format!(", {unit}"),
        };
        let mut chart = ChartBuilder::on(panel)
            .margin(10)
            .caption(format!("{}{unit}", quantity.name), ("sans-serif", 15))
            .x_label_area_size(34)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..all, 0.0..greatest * 1.15)
            .map_err(|e| failed(&e))?;
        let below = slope.map_or_else(
            || "million requests".to_owned(),
            |slope| {
                format!(
                    "million requests; {:+.2} ± {:.2} each",
                    slope.value, slope.half_width
                )
            },
        );
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(5)
            .y_labels(5)
            .x_desc(below)
            .draw()
            .map_err(|e| failed(&e))?;
        let warm_at = report.warm_at();
        let (warming, warm): (Vec<_>, Vec<_>) = report
            .samples
            .iter()
            .partition(|sample| sample.requests < warm_at);
        for (samples, color) in [(warming, BLACK.mix(0.35)), (warm, BLUE.mix(0.9))] {
            let points: Vec<(f64, f64)> = samples.into_iter().map(value).collect();
            let line = PathElement::new(points, color);
            chart.draw_series([line]).map_err(|e| failed(&e))?;
        }
    }
    area.present().map_err(|e| failed(&e))
}
