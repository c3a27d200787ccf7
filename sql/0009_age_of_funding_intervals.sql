-- What is said of the interval was true only while the venue answers.

COMMENT ON COLUMN funding_rates.funding_interval IS
    'As the venue said when it was asked last: a minute before at most, and up to ten while it '
    'does not answer; NULL where it did not say, or longer ago';
