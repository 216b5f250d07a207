"""The reports that several tests look at."""

from report_cases import rendered as rendered
