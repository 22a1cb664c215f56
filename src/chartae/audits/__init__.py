"""The health report of a learned latent space: it reads models and never trains them."""

from chartae.audits.findings import Finding
from chartae.audits.remedies import Remedy
from chartae.audits.report import Report, audit

__all__ = ["Finding", "Remedy", "Report", "audit"]
