"""Human preferences: file formats, labels, compared clips."""
