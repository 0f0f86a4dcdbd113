"""Agreement, correlation and means by cluster; numpy and pandas only."""
