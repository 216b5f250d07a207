"""What a run would do, before it does it: what is missing, how long that takes, what it can detect."""

from ablate.forecast.detectable import Detectable, detectable_effect, pooled_sd
from ablate.forecast.duration import Duration, expected_duration
from ablate.forecast.missing import Forecast, forecast
from ablate.forecast.show import show_forecast

__all__ = [
    "Detectable",
    "Duration",
    "Forecast",
    "detectable_effect",
    "expected_duration",
    "forecast",
    "pooled_sd",
    "show_forecast",
]
