"""All forms: importing them registers them."""

from contract_forms import attention as attention
from contract_forms import elementwise as elementwise
from contract_forms import experts as experts
from contract_forms import products as products
from contract_forms import recurrent as recurrent
from contract_forms import scales as scales
from contract_forms.form import FORMS as FORMS
