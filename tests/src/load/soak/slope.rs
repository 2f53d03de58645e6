//! A straight line through samples, and how sure it is.

/// Samples next to each other are alike, and would make the line look surer than it is: the line
/// goes through the means of so many stretches of them.
const STRETCHES: usize = 20;
/// Of the normal distribution: 95 % on both sides.
const Z: f64 = 1.959_964;

/// Growth for each unit of x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The estimate.
    pub value: f64,
    /// Half of its confidence interval of 95 %.
    pub half_width: f64,
}

impl Slope {
    /// Of `(x, y)`, ascending by x; `None` with too few.
    pub fn of(samples: &[(f64, f64)]) -> Option<Self> {
        if samples.len() < 2 * STRETCHES {
            return None;
        }
        let bound = |stretch: usize| stretch * samples.len() / STRETCHES;
        let means: Vec<(f64, f64)> = (0..STRETCHES)
            .map(|stretch| mean(&samples[bound(stretch)..bound(stretch + 1)]))
            .collect();
        let (x_mean, y_mean) = mean(&means);
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            means.iter().map(|(x, y)| of(x - x_mean, y - y_mean)).sum()
        };
        let xx = sum(&|x, _| x * x);
        let value = sum(&|x, y| x * y) / xx;
        let freedom = (STRETCHES - 2) as f64;
        let variance = sum(&|x, y| (y - value * x).powi(2)) / freedom;
        Some(Self {
            value,
            half_width: student(freedom) * (variance / xx).sqrt(),
        })
    }

    /// Whether it grows, for sure, by more than `bound`.
    pub fn exceeds(&self, bound: f64) -> bool {
        self.value - self.half_width > 0.0 && self.value > bound
    }
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (x / count, y / count)
}

/// Student's quantile for 95 %, by its expansion around the normal one (Cornish and Fisher).
fn student(freedom: f64) -> f64 {
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    Z + first / freedom + second / freedom.powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(count: u32, growth: f64) -> Vec<(f64, f64)> {
        let mut random = fastrand::Rng::with_seed(5);
        (0..count)
            .map(|n| {
                let x = f64::from(n) / f64::from(count);
                (x, 100.0 + growth * x + random.f64() * 10.0)
            })
            .collect()
    }

    #[test]
    fn a_line_is_found_exactly() {
        let line: Vec<_> = (0..100)
            .map(f64::from)
            .map(|x| (x, 3.0 - 2.0 * x))
            .collect();
        let slope = Slope::of(&line).unwrap();
        assert!((slope.value + 2.0).abs() < 1e-9 && slope.half_width < 1e-9);
        assert_eq!(Slope::of(&line[..39]), None);
    }

    #[test]
    fn noise_is_no_growth_and_a_leak_in_noise_is() {
        let flat = Slope::of(&noisy(400, 0.0)).unwrap();
        assert!(flat.value.abs() < flat.half_width, "{flat:?}");
        assert!(!flat.exceeds(0.0));
        let leak = Slope::of(&noisy(400, 5.0)).unwrap();
        assert!(leak.exceeds(2.0) && !leak.exceeds(20.0), "{leak:?}");
        assert!((leak.value - 5.0).abs() < leak.half_width, "{leak:?}");
    }

    #[test]
    fn student_with_eighteen_degrees() {
        assert!((student(18.0) - 2.1009).abs() < 1e-3);
    }
}
