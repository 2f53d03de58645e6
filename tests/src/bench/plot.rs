//! The ratios of the requests as a picture.

use std::path::Path;

use plotters::prelude::*;

use crate::requests::Ratio;

const SIZE: (u32, u32) = (900, 480);
/// Part of a body size's width that its points take.
const WIDTH: f64 = 0.7;

/// Writes an SVG: for each body size the median of each load, with its ends, on a logarithmic
/// scale.
pub fn draw(path: &Path, ratios: &[Ratio]) -> Result<(), String> {
    let mut sizes: Vec<usize> = ratios.iter().map(|r| r.body_bytes).collect();
    sizes.dedup();
    let mut loads: Vec<&str> = Vec::new();
    for ratio in ratios {
        if !loads.contains(&ratio.load) {
            loads.push(ratio.load);
        }
    }
    let ends = ratios.iter().map(|r| r.to_alone.max).fold(1.0, f64::max);
    let begin = ratios.iter().map(|r| r.to_alone.min).fold(1.0, f64::min);
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());

    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption(
            "Processor time per request ÷ Envoy alone",
            ("sans-serif", 18),
        )
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(
            -0.5..sizes.len() as f64 - 0.5,
            (begin * 0.9..ends * 1.2).log_scale(),
        )
        .map_err(|e| failed(&e))?;
    let size_at = |x: &f64| {
        let whole = (x.round() - x).abs() < 1e-6;
        let size = sizes.get(x.round() as usize).filter(|_| whole && *x > -0.1);
        size.map_or_else(String::new, |bytes| format!("{} KB", bytes / 1000))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(sizes.len() * 2 + 1)
        .x_label_formatter(&size_at)
        .y_label_formatter(&|y| format!("{y:.1}"))
        .draw()
        .map_err(|e| failed(&e))?;
    for (place, load) in loads.iter().enumerate() {
        let color = Palette99::pick(place).to_rgba();
        let offset = ((place as f64 + 0.5) / loads.len() as f64 - 0.5) * WIDTH;
        let points = ratios.iter().filter(|r| r.load == *load).map(|r| {
            let size = sizes.iter().position(|s| *s == r.body_bytes);
            let x = size.unwrap_or_default() as f64 + offset;
            let spread = r.to_alone;
            ErrorBar::new_vertical(x, spread.min, spread.median, spread.max, color.filled(), 8)
        });
        chart
            .draw_series(points)
            .map_err(|e| failed(&e))?
            .label(*load)
            .legend(move |(x, y)| Circle::new((x + 10, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}
